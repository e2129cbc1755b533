// Colours of a terminal: SGR sequences become spans with classes, all other sequences and control characters leave.
const CONTROL = /\u001b(?:\[([0-9;:]*)[ -/]*([@-~])|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-_])|[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

export function colours(text) {
  const spans = [];
  let plain = "";
  let at = 0;
  let style = {};
  const take = (until) => {
    if (until === at) return;
    const name = classes(style);
    if (name) spans.push([plain.length, plain.length + until - at, name]);
    plain += text.slice(at, until);
  };
  for (const found of text.matchAll(CONTROL)) {
    take(found.index);
    at = found.index + found[0].length;
    if (found[2] === "m") style = styled(style, found[1]);
  }
  take(text.length);
  return { plain, spans: spans.length ? spans : null };
}

function styled(before, codes) {
  const style = { ...before };
  const numbers = codes.split(/[;:]/).map(Number);
  for (let at = 0; at < numbers.length; at++) {
    const code = numbers[at];
    if (code === 0) for (const name of Object.keys(style)) delete style[name];
    else if (code === 1) style.bold = true;
    else if (code === 2) style.dim = true;
    else if (code === 3) style.italic = true;
    else if (code === 4) style.underline = true;
    else if (code === 22) delete style.bold, delete style.dim;
    else if (code === 23) delete style.italic;
    else if (code === 24) delete style.underline;
    else if (code >= 30 && code <= 37) style.colour = code - 30;
    else if (code >= 90 && code <= 97) style.colour = code - 82;
    else if (code === 39) delete style.colour;
    else if (code === 38 || code === 48) {
      const [colour, used] = extended(numbers.slice(at + 1));
      at += used;
      if (code === 38 && colour !== null) style.colour = colour;
    }
  }
  return style;
}

// The nearest of the sixteen colours of a terminal, which have contrast here, for one of 256 or of 16 million.
function extended([kind, ...values]) {
  if (kind === 5) {
    const [index] = values;
    if (index < 16) return [index, 2];
    if (index >= 232) return [index < 244 ? 8 : 15, 2];
    const cube = index - 16;
    return [nearest(Math.floor(cube / 36) * 51, (Math.floor(cube / 6) % 6) * 51, (cube % 6) * 51), 2];
  }
  return kind === 2 ? [nearest(...values), 4] : [null, 1];
}

function nearest(red = 0, green = 0, blue = 0) {
  const most = Math.max(red, green, blue);
  if (most < 40) return 8;
  const bit = (value, weight) => (value > most * 0.6 ? weight : 0);
  return bit(red, 1) + bit(green, 2) + bit(blue, 4) + (most > 190 ? 8 : 0);
}

function classes({ colour, bold, dim, italic, underline }) {
  const names = [];
  if (colour !== undefined) names.push(`ansi-${colour}`);
  for (const [name, on] of Object.entries({ bold, dim, italic, underline })) if (on) names.push(`ansi-${name}`);
  return names.join(" ");
}
