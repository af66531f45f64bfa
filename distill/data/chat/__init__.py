"""Chats as tokens: templates, spans of the assistant, the beginning of a text."""
