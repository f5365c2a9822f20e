"""What clients counted, in the same words as the metrics."""

import collections


class Tally:
    """`answers` by class of the status and reason; the rest is what has no answer, or only a part of one."""

    def __init__(self):
        self.answers = collections.Counter()
        # An answer that ended before its end, a call whose client left, a call that got no byte, one that took too long,
        # a connection that nobody took, an idle connection that the server had closed when the next call came.
        self.cut = self.aborted = self.unanswered = self.late = self.refused = self.idle_closed = 0
        # A client that left may or may not have had its whole answer: this many of them sent no whole head.
        self.opaque = 0

    def answered(self, status, reason):
        self.answers[f"{status // 100}xx", reason] += 1

    def calls(self):
        return sum(self.answers.values()) + self.cut + self.aborted + self.unanswered + self.late + self.opaque

    def failed(self):
        """By reason, for people."""
        found = collections.Counter()
        for (code, reason), count in self.answers.items():
            if reason or code == "5xx":
                found[reason or code] += count
        for name in ("cut", "unanswered", "late", "refused"):
            if count := getattr(self, name):
                found[name] += count
        return found
