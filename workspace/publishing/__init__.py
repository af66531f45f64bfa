"""Publishing: students on the Hugging Face Hub, with their cards."""

from workspace.publishing.hub import Upload, check_target, publish

__all__ = ["Upload", "check_target", "publish"]
