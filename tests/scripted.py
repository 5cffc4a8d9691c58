"""A judge that says what a test tells it to say; all else about it is the real engine."""

from collections.abc import Callable

from hf_dataselect.engines.llm.judge import Judge
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.store.replies import Reply


class ScriptedJudge(Judge):
    """`reply` gives the words for the text of a question, or `None` for a question that fails."""

    def __init__(self, reply: Callable[[str], str | None], runtime: Runtime | None = None):
        super().__init__("scripted", runtime or Runtime())
        self.reply, self.asked = reply, []

    def _answer(self, questions, max_new_tokens, label):
        replies = {}
        for key, question in questions.items():
            self.asked.append(question[-1]["content"])
            text = self.reply(self.asked[-1])
            replies[key] = self.record(key, Reply(text, None if text is not None else "it says nothing"))
        return replies
