// One agent loop of Vercel's AI SDK. Reads a task as JSON from its argument, writes what came of it as JSON.
//
// task: {face, model, prompt, folder, url, key, way: "whole" | "streamed" | "object", retries, options}
// Printed: {text, steps, finishReason, usage, object, pieces} or {error: {name, status, message}}.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, RetryError, generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";

const task = JSON.parse(process.argv[2]);
const settings = { name: "lab", baseURL: `${task.url}/v1`, apiKey: task.key, supportsStructuredOutputs: true };
const makers = { chat: createOpenAICompatible, messages: createAnthropic, responses: createOpenAI };
const write_file = tool({
  description: "Write a file.",
  inputSchema: z.object({ name: z.string(), content: z.string() }),
  execute: async ({ name, content }) => {
    await writeFile(join(task.folder, name), content);
    return `${content.length} characters written`;
  },
});
const city = z.object({ name: z.string(), people: z.number().int() });
const options = {
  model: makers[task.face](settings)(task.model),
  prompt: task.prompt,
  maxRetries: task.retries,
  providerOptions: task.options,
  ...(task.way === "object"
    ? { output: Output.object({ schema: city }) }
    : { tools: { write_file }, stopWhen: isStepCount(5) }),
};

async function run() {
  if (task.way !== "streamed") {
    const result = await generateText(options);
    return { ...(await told(result)), object: task.way === "object" ? result.output : undefined, pieces: 0 };
  }
  let failure;
  const result = streamText({ ...options, onError: ({ error }) => { failure = error; } });
  let pieces = 0;
  for await (const piece of result.textStream) pieces += piece.length > 0;
  if (failure !== undefined) throw failure;
  return { ...(await told(result)), pieces };
}

async function told(result) {
  const usage = (await result.totalUsage) ?? (await result.usage);
  const steps = await result.steps;
  return {
    text: await result.text,
    steps: steps.map((step) => step.toolCalls.map((call) => call.toolName)),
    finishReason: await result.finishReason,
    usage: { input: usage.inputTokens, output: usage.outputTokens },
  };
}

function failed(error) {
  const last = RetryError.isInstance(error) ? error.lastError : error;
  const status = APICallError.isInstance(last) ? (last.statusCode ?? null) : null;
  return { error: { name: last?.name ?? null, status, message: last?.message ?? JSON.stringify(last) } };
}

console.log(JSON.stringify(await run().catch(failed)));
