// Answers one JSON request per line: {pattern, flags, texts} -> null (does not compile) or, per text,
// [the pattern is found in it, the pattern matches all of it].
const lines = require("node:readline").createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const { pattern, flags, texts } = JSON.parse(line);
  let answer = null;
  try {
    const found = new RegExp(pattern, flags);
    const whole = new RegExp(`^(?:${pattern})$`, flags);
    answer = texts.map((text) => [found.test(text), whole.test(text)]);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
});
