// What an application does with its client; a mistake throws. Run by test_clients.py.

import { CallboardError, Client, type Models } from "./callboard.js";

const [url, token] = process.argv.slice(2) as [string, string];

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(`not so: ${what}`);
}

const client = new Client({ url, token: () => token, retries: 2 });

// The data has the type that the handler's annotation says.
const ordered = await client.call("orderTickets", { event: "evt_1", tickets: 2, gift: true });
check(ordered.success, "an order succeeds");
if (ordered.success) {
  const total: number = ordered.data.total;
  check(total === 19, "two tickets cost 19");
}

// A wrong call is an error of the compiler ...
// @ts-expect-error no such action
await client.call("orderTicket", {});
// @ts-expect-error tickets is a number
const wrong = await client.call("orderTickets", { event: "evt_1", tickets: "two" });
// @ts-expect-error event and tickets are required
await client.call("orderTickets");
// ... and a failure at run time.
check(!wrong.success && wrong.issues?.[0]?.path === "tickets", "the issue names the field");

// A failure has a code: one that the handler declares, or Callboard's own.
const soldOut = await client.call("orderTickets", { event: "evt_sold_out", tickets: 2 });
check(!soldOut.success && soldOut.code === "sold_out" && soldOut.status === 200, "its own code");
check(!wrong.success && wrong.code === "invalid_params" && wrong.status === 422, "Callboard's code");
// @ts-expect-error the action declares no such code
check(!wrong.success && wrong.code !== "sold_oout", "no other code");

// Without a model any object will do, and none.
check((await client.call("echo")).success, "no params");
check((await client.call("echo", { any: ["thing"] })).success, "any params");

// Submit, watch, wait.
const runId = await client.submit("slow", { seconds: 1 });
const seen: Models.Run[] = [];
for await (const run of client.events(runId)) seen.push(run);
check(seen.some((run) => run.progress !== null), "progress is seen");
check(seen.at(-1)?.status === "succeeded", "the end is seen");
check((await client.wait<"slow">(runId)).success, "the result is there");

// One key, one run.
const first = await client.submit("echo", { n: 1 }, { idempotencyKey: `key-${runId}` });
const second = await client.submit("echo", { n: 1 }, { idempotencyKey: `key-${runId}` });
check(first === second, "the same run");

// Later, and many at once.
const later = await client.start("echo", { n: 1 }, { delay: 0.5, key: `later-${runId}` });
check((await client.wait<"echo">(later, { timeout: 60 })).success, "it runs when it is due");
const then = await client.start("echo", {}, { at: new Date(Date.now() + 600_000) });
check((await client.run(then)).waitingFor?.kind === "time", "it waits for its time");
check(await client.signal(then, "approve", { by: "bob" }), "the first signal counts");
check(!(await client.signal(then, "approve")), "a later one does not");
await client.cancel(then);
const answers = await client.batch([
  { action: "echo", params: { n: 1 } },
  { action: "orderTickets", params: { event: "evt_1", tickets: 2 }, delay: 0.5 },
  // @ts-expect-error tickets is a number
  { action: "orderTickets", params: { event: "evt_1", tickets: "two" } },
]);
check(answers.map((answer) => "runId" in answer).join() === "true,true,false", "each is answered");
const refused = answers[2]!;
check("error" in refused && refused.status === 422, "with its status");
check("error" in refused && refused.code === "invalid_params", "and its code");

// Cancel.
const long = await client.submit("slow", { seconds: 30 });
await client.cancel(long);
const canceled = await client.wait(long, { timeout: 20 });
check(!canceled.success && canceled.code === "canceled", "it is canceled");

// What cannot be told by a result is thrown.
const errorOf = (promise: Promise<unknown>) => promise.then(() => null, (error: unknown) => error);
const unknown = await errorOf(client.run("00000000-0000-0000-0000-000000000000"));
check(unknown instanceof CallboardError && unknown.status === 404 && unknown.code === "not_found", "an unknown run throws");
const ended = await errorOf(client.signal(then, "refuse"));
check(ended instanceof CallboardError && ended.status === 404, "nothing waits in what has ended");
const nobody = await errorOf(new Client({ url }).submit("orderTickets", { event: "e", tickets: 1 }));
check(nobody instanceof CallboardError && nobody.status === 401, "a submit without a token throws");
const away = await errorOf(new Client({ url: "http://127.0.0.1:9" }).call("echo"));
check(away instanceof CallboardError && away.status === 0 && away.code === "unavailable", "no server throws");

console.log("all is so");
