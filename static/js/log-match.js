// Where a text matches, as [from, to] pairs. Used by the page for plain text and by the worker for patterns.
const MOST_HITS = 50; // of one line

export function plainHits(text, needle) {
  const [hay, wanted] = [text.toLowerCase(), needle.toLowerCase()];
  const hits = [];
  for (let at = hay.indexOf(wanted); at >= 0 && hits.length < MOST_HITS; at = hay.indexOf(wanted, at + wanted.length)) {
    hits.push([at, at + wanted.length]);
  }
  return hits.length ? hits : null;
}

export function patternHits(text, pattern) {
  const hits = [];
  for (const found of text.matchAll(pattern)) {
    hits.push([found.index, found.index + found[0].length]);
    if (hits.length >= MOST_HITS) break;
  }
  return hits.length ? hits : null;
}
