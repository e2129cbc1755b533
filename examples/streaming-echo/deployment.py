"""Says a text back word by word, as a language model would stream its answer."""

import time


class Deployment:
    def request(self, data, context):
        # Only there on a platform that streams; elsewhere the whole answer must do.
        send = context.get("streaming_update", lambda part: None)
        words = data["text"].split()
        for word in words:
            send(word + " ")
            time.sleep(data.get("seconds_per_word") or 0)
        return {"text": " ".join(words), "words": len(words)}
