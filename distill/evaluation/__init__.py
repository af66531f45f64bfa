"""Scores of a student: KL, cross-entropy, agreement, answers and tasks."""

from distill.evaluation.generation import completions, prompts, text_of
from distill.evaluation.logits import answers, answers_kl, next_token_log_probs, spread
from distill.evaluation.questions import ContextLimit, write_next_line_questions
from distill.evaluation.scores import Evaluation, evaluate, perplexity, text_loss
from distill.evaluation.task_loading import check_tasks, named_fingerprint
from distill.evaluation.task_set import TaskSet
from distill.evaluation.tasks import Questions, TaskAnswers, answer_tasks, evaluate_tasks

__all__ = [
    "ContextLimit",
    "Evaluation",
    "Questions",
    "TaskAnswers",
    "TaskSet",
    "answer_tasks",
    "answers",
    "answers_kl",
    "check_tasks",
    "completions",
    "evaluate",
    "evaluate_tasks",
    "named_fingerprint",
    "next_token_log_probs",
    "perplexity",
    "prompts",
    "spread",
    "text_loss",
    "text_of",
    "write_next_line_questions",
]
