"""Text and chats: read, split into documents held out and trained on, tokenised and packed."""
