// The official npm client against a server; writes what it found to standard output, as JSON.
import { createRequire } from "node:module";

const { NODE_PACKAGES, BASE_URL, MODEL, IMAGE } = process.env;
const OpenAI = createRequire(`${NODE_PACKAGES}/package.json`)("openai");
const client = new OpenAI({ baseURL: BASE_URL, apiKey: "none", maxRetries: 0 });
const common = { model: MODEL, temperature: 0, max_tokens: 20 };
const question = [{ role: "user", content: "What is this?" }];
const shown = [
  {
    role: "user",
    content: [
      { type: "image_url", image_url: { url: IMAGE, detail: "low" } },
      { type: "text", text: "What is this?" },
    ],
  },
];
const found = {};

const models = [];
for await (const model of client.models.list()) models.push(model.id);
found.models = models;

const whole = await client.chat.completions.create({ ...common, messages: shown, logprobs: true, top_logprobs: 2 });
found.whole = whole.choices[0].message.content;
found.logprobs = whole.choices[0].logprobs.content.map((each) => each.top_logprobs.length);
found.usage = whole.usage;

let text = "";
let usage = null;
const stream = await client.chat.completions.create({
  ...common, messages: shown, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
found.streamed = text;
found.streamUsage = usage;

const schema = {
  type: "object",
  properties: { kind: { enum: ["person", "animal"] }, age: { enum: [1, 2, 3] } },
  required: ["kind", "age"],
  additionalProperties: false,
};
const structured = await client.chat.completions.parse({
  ...common, max_tokens: 60, messages: question,
  response_format: { type: "json_schema", json_schema: { name: "being", strict: true, schema } },
});
found.structured = JSON.parse(structured.choices[0].message.content);

const errors = {};
const attempts = {
  model: () => client.chat.completions.create({ ...common, model: "unknown", messages: question }),
  field: () => client.chat.completions.create({ ...common, temperature: 9, messages: question }),
};
for (const [name, attempt] of Object.entries(attempts)) {
  try {
    await attempt();
  } catch (error) {
    errors[name] = { kind: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
}
found.errors = errors;

const left = await client.chat.completions.create({
  ...common, max_tokens: 100000, messages: question, stream: true, ignore_eos: true,
});
let chunks = 0;
for await (const _ of left) {
  chunks += 1;
  if (chunks === 3) break; // which aborts the request
}
found.left = chunks;

const completion = await client.completions.create({ model: MODEL, prompt: "Once", max_tokens: 5, temperature: 0, logprobs: 1, echo: true });
found.completion = completion.choices[0].text;

console.log(JSON.stringify(found));
