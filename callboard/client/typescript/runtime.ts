/** What an action answered: its data, or why it failed. */
export type Result<Data, Code extends string = string> =
  | { success: true; data: Data }
  | Failure<Code>;

/**
 * Why it failed: `error` for people, `code` for programs. `status`: of the HTTP response.
 * Where the action declares its codes, they and Callboard's own are all that there are.
 */
export type Failure<Code extends string = string> = Omit<Models.Failure, "code"> & {
  code: Code;
  status?: number;
};

export type ActionName = keyof Actions;

/** The result of an action. */
export type ResultOf<Name extends ActionName> = Result<Actions[Name]["data"], Actions[Name]["code"]>;

/** The params of an action may be left out where it needs none. */
type Arguments<Name extends ActionName, Options> = {} extends Actions[Name]["params"]
  ? [params?: Actions[Name]["params"], options?: Options]
  : [params: Actions[Name]["params"], options?: Options];

export interface ClientOptions {
  /** Where the API is, such as "https://app.example"; by default this page's own origin. */
  url?: string;
  /** A bearer token, or a function that gives one for each request. */
  token?: string | (() => string | null | Promise<string | null>) | undefined;
  /**
   * How often a call is tried again that got no answer, 429 or 503 (default 0). Such a call
   * carries an Idempotency-Key, under which the server runs it once; so it needs a token.
   */
  retries?: number;
  /** Instead of the global fetch. */
  fetch?: typeof fetch;
}

export interface SubmitOptions {
  /** One of your own, 1..255 characters: a second call under it joins the run of the first. */
  idempotencyKey?: string;
  signal?: AbortSignal | undefined;
}

export interface StartOptions {
  /** Seconds from now until the run starts, at most 366 days. */
  delay?: number;
  /** When the run starts: a Date, or ISO 8601 with an offset. */
  at?: Date | string;
  /** An Idempotency-Key, 1..255 characters, under which it is one run. */
  key?: string;
  signal?: AbortSignal | undefined;
}

type BatchParams<Name extends ActionName> = {} extends Actions[Name]["params"]
  ? { params?: Actions[Name]["params"] }
  : { params: Actions[Name]["params"] };

/** A call of a batch. `key`: an Idempotency-Key; `delay`: seconds until it starts. */
export type BatchCall = {
  [Name in ActionName]: { action: Name; key?: string; delay?: number } & BatchParams<Name>;
}[ActionName];

/** What came of a call of a batch. */
export type BatchAnswer =
  | { runId: string }
  | { error: string; code: string; status: number; issues?: { path: string; message: string }[] };

export interface CallOptions extends SubmitOptions {
  /** Whole seconds that the server waits for the result; then it answers a failure (504). */
  wait?: number;
}

/** A request that got no envelope, or was refused where no result can tell it. */
export class CallboardError extends Error {
  /** Of the response; 0 where nothing answered. */
  readonly status: number;
  /** Of the failure; "unavailable" where nothing answered. */
  readonly code: string;

  constructor(message: string, status: number, code = "unavailable") {
    super(message);
    this.name = "CallboardError";
    this.status = status;
    this.code = code;
  }
}

interface Reply {
  status: number;
  runId: string | null;
  retryAfter: number | null;
  envelope: { success: true; data: unknown } | Models.Failure;
}

const TRY_AGAIN = [429, 503];
const RUN_WAIT = 30; // seconds that one question after a run waits for its end
const LONGEST_PAUSE = 10; // seconds between two tries

/** Calls the actions of one application. */
export class Client {
  readonly #options: ClientOptions;
  readonly #url: string;

  constructor(options: ClientOptions = {}) {
    if (options.retries && !options.token) {
      throw new TypeError("retries need a token: the server keeps idempotency keys by caller");
    }
    this.#options = options;
    this.#url = (options.url ?? "").replace(/\/+$/, "");
  }

  /** Call an action and wait for its result. A refusal (401, 422, ...) is a failure, too. */
  async call<Name extends ActionName>(
    action: Name,
    ...[params, options]: Arguments<Name, CallOptions>
  ): Promise<ResultOf<Name>> {
    const prefer: Record<string, string> =
      options?.wait === undefined ? {} : { Prefer: `wait=${options.wait}` };
    const reply = await this.#send(action, params, prefer, options);
    const { envelope, status } = reply;
    const result = envelope.success ? envelope : { ...envelope, status };
    return result as ResultOf<Name>;
  }

  /** Call an action without waiting: the id of its run, for `wait`. */
  async submit<Name extends ActionName>(
    action: Name,
    ...[params, options]: Arguments<Name, SubmitOptions>
  ): Promise<string> {
    const reply = await this.#send(action, params, { Prefer: "respond-async" }, options);
    if (reply.runId === null) throw refusal(reply);
    return reply.runId;
  }

  /** Have an action run, at once or later: the id of its run, for `wait`. */
  async start<Name extends ActionName>(
    action: Name,
    ...[params, options]: Arguments<Name, StartOptions>
  ): Promise<string> {
    const headers: Record<string, string> = { Prefer: "respond-async" };
    if (options?.delay !== undefined) headers["Run-Delay"] = options.delay.toFixed(3);
    if (options?.at !== undefined) {
      headers["Run-At"] = typeof options.at === "string" ? options.at : options.at.toISOString();
    }
    const given: SubmitOptions = { signal: options?.signal };
    if (options?.key !== undefined) given.idempotencyKey = options.key;
    const reply = await this.#send(action, params, headers, given);
    if (reply.runId === null) throw refusal(reply);
    return reply.runId;
  }

  /**
   * Start up to 1,000 runs with one request; what came of each, in order. It throws only where
   * the whole is refused.
   */
  async batch(
    calls: BatchCall[],
    { signal }: { signal?: AbortSignal | undefined } = {},
  ): Promise<BatchAnswer[]> {
    const again = (this.#options.retries ?? 0) > 0;
    const keyed = again ? calls.map((call) => ({ ...call, key: call.key ?? newKey() })) : calls;
    const reply = await this.#insist("/api/batch", {
      method: "POST",
      body: JSON.stringify({ calls: keyed }),
      headers: { "Content-Type": "application/json" },
      signal: signal ?? null,
    });
    if (!reply.envelope.success) throw refusal(reply);
    return reply.envelope.data as BatchAnswer[];
  }

  /**
   * The result of a run, once it has ended; the type of its data is that of `Name`, as in
   * `wait<"inviteAttendee">(runId)`. `timeout`: seconds, after which it throws (the run goes on).
   */
  async wait<Name extends ActionName>(
    runId: string,
    { timeout = Infinity, signal }: { timeout?: number; signal?: AbortSignal | undefined } = {},
  ): Promise<ResultOf<Name>> {
    const deadline = Date.now() + timeout * 1000;
    for (;;) {
      const left = Math.ceil(Math.max(deadline - Date.now(), 0) / 1000);
      const run = await this.run(runId, { wait: Math.min(left, RUN_WAIT), signal });
      if (run.result !== null) return run.result as ResultOf<Name>;
      if (Date.now() >= deadline) {
        throw new CallboardError(`Run ${runId} is ${run.status} after ${timeout} s`, 0);
      }
    }
  }

  /** A run as it stands, at once or after up to `wait` seconds. */
  async run(
    runId: string,
    { wait = 0, signal }: { wait?: number; signal?: AbortSignal | undefined } = {},
  ): Promise<Models.Run> {
    return runOf(await this.#request(`${runPath(runId)}?wait=${wait}`, { signal: signal ?? null }));
  }

  /** Cancel a run; how it stands then. */
  async cancel(runId: string, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<Models.Run> {
    return runOf(await this.#request(`${runPath(runId)}/cancel`, { method: "POST", signal: signal ?? null }));
  }

  /**
   * Tell a run what it waits for, or will wait for: any JSON. False where it changes nothing: a
   * signal of this name came before, or the run has waited for it in vain.
   */
  async signal(
    runId: string,
    name: string,
    data: unknown = true,
    { signal }: { signal?: AbortSignal | undefined } = {},
  ): Promise<boolean> {
    const reply = await this.#insist(`${runPath(runId)}/signals/${encodeURIComponent(name)}`, {
      method: "POST",
      body: JSON.stringify(data),
      headers: { "Content-Type": "application/json" },
      signal: signal ?? null,
    });
    if (!reply.envelope.success) throw refusal(reply);
    return (reply.envelope.data as { accepted: boolean }).accepted;
  }

  /** A run at each change of its status or progress, until its end. */
  async *events(
    runId: string,
    { signal }: { signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<Models.Run, void, undefined> {
    const response = await this.#fetch(`${runPath(runId)}/events`, { signal: signal ?? null });
    if (!response.ok || response.body === null) throw refusal(await replyOf(response));
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let text = "";
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        const lines = (text + decoder.decode(value, { stream: true })).split("\n");
        text = lines.pop() ?? "";
        for (const line of lines) {
          if (line.startsWith("data: ")) yield JSON.parse(line.slice(6)) as Models.Run;
        }
      }
    } finally {
      await reader.cancel();
    }
  }

  async #send(
    action: string,
    params: unknown,
    headers: Record<string, string>,
    options: SubmitOptions = {},
  ): Promise<Reply> {
    const retries = this.#options.retries ?? 0;
    const key = options.idempotencyKey ?? (retries > 0 ? newKey() : undefined);
    const given = { ...headers, "Content-Type": "application/json" };
    const request: RequestInit = {
      method: "POST",
      body: JSON.stringify(params ?? {}),
      headers: key === undefined ? given : { ...given, "Idempotency-Key": key },
      signal: options.signal ?? null,
    };
    return this.#insist(`/api/actions/${encodeURIComponent(action)}`, request);
  }

  /** The reply to a request, tried again as often as `retries` says. */
  async #insist(path: string, request: RequestInit): Promise<Reply> {
    const retries = this.#options.retries ?? 0;
    for (let number = 0; number < retries; number++) {
      const reply = await this.#request(path, request).catch((error: unknown) => {
        if (error instanceof CallboardError) return null;
        throw error;
      });
      if (reply !== null && !TRY_AGAIN.includes(reply.status)) return reply;
      await pause(Math.min(reply?.retryAfter ?? 0.5 * 2 ** number, LONGEST_PAUSE), request.signal);
    }
    return this.#request(path, request);
  }

  async #request(path: string, request: RequestInit): Promise<Reply> {
    return replyOf(await this.#fetch(path, request));
  }

  async #fetch(path: string, request: RequestInit): Promise<Response> {
    const headers = new Headers(request.headers);
    const { token } = this.#options;
    const bearer = typeof token === "function" ? await token() : token;
    if (bearer) headers.set("Authorization", `Bearer ${bearer}`);
    const send = this.#options.fetch ?? globalThis.fetch;
    try {
      return await send(this.#url + path, { ...request, headers });
    } catch (error) {
      if (request.signal?.aborted) throw error;
      throw new CallboardError(`The server does not answer: ${String(error)}`, 0);
    }
  }
}

function newKey(): string {
  // crypto.randomUUID is not there on pages without https, nor in Node 18
  if (globalThis.crypto?.randomUUID) return globalThis.crypto.randomUUID();
  const digits = Array.from({ length: 3 }, () => Math.random().toString(36).slice(2));
  return [Date.now().toString(36), ...digits].join("-");
}

function runPath(runId: string): string {
  return `/api/runs/${encodeURIComponent(runId)}`;
}

async function replyOf(response: Response): Promise<Reply> {
  const envelope: unknown = await response.json().catch(() => null);
  if (typeof envelope !== "object" || envelope === null || !("success" in envelope)) {
    throw new CallboardError(
      `The server answered ${response.status} without an envelope`,
      response.status,
    );
  }
  const after = Number(response.headers.get("Retry-After") ?? NaN);
  return {
    status: response.status,
    runId: response.headers.get("Run-Id"),
    retryAfter: Number.isFinite(after) ? after : null,
    envelope: envelope as Reply["envelope"],
  };
}

function runOf(reply: Reply): Models.Run {
  if (!reply.envelope.success) throw refusal(reply);
  return reply.envelope.data as Models.Run;
}

function refusal(reply: Reply): CallboardError {
  if (reply.envelope.success) return new CallboardError("no run", reply.status);
  return new CallboardError(reply.envelope.error, reply.status, reply.envelope.code);
}

function pause(seconds: number, signal?: AbortSignal | null): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        reject(signal.reason);
      },
      { once: true },
    );
  });
}
