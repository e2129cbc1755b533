// Runs patterns apart from the page, which ends this worker when one takes too long.
import { patternHits } from "./log-match.js";

addEventListener("message", ({ data: { id, source, texts } }) => {
  const pattern = new RegExp(source, "gi");
  postMessage({ id, found: texts.map((text) => patternHits(text, pattern)) });
});
