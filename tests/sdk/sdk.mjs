// The official OpenAI SDK as the client of build/mock_server: what it accepts,
// what it throws, what it retries. Prints the lines that cmocka prints; exit
// status 1 if a case failed. Started by run.sh.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import assert from 'node:assert/strict';
import OpenAI, { AzureOpenAI, toFile } from 'openai';

const binary = process.argv[2];
let passed = 0;
let failed = 0;

async function start(...options) {
  const child = spawn(binary, ['--port', '0', ...options], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const line = await new Promise((resolve, reject) => {
    let text = '';
    child.stdout.on('data', (d) => {
      text += d;
      if (text.includes('\n')) resolve(text);
    });
    child.on('exit', () => reject(new Error('mock_server ended')));
  });
  assert.match(line, /^listening on https?:\/\/127\.0\.0\.1:\d+\/v1\n$/);
  const baseURL = line.slice('listening on '.length).trim();
  const get = async (path) =>
    (await fetch(baseURL.replace('/v1', path))).json();
  return {
    baseURL,
    stats: () => get('/mock/stats'),
    report: () => get('/mock/report'),
    client: (more = {}) =>
      new OpenAI({ apiKey: 'sk-test', baseURL, maxRetries: 0, ...more }),
    stop: () =>
      new Promise((resolve) => {
        child.on('exit', (code) => resolve(code));
        child.kill('SIGTERM');
      }),
  };
}

async function test(name, options, fn) {
  const mock = await start(...options);
  try {
    await fn(mock);
    passed++;
    console.log(`[       OK ] ${name}`);
  } catch (e) {
    failed++;
    console.log(`[  FAILED  ] ${name}\n${e.stack}`);
  }
  assert.equal(await mock.stop(), 0);
}

const user = (content) => [{ role: 'user', content }];
const model = 'gpt-4o-mini';

async function thrown(promise) {
  try {
    await promise;
  } catch (e) {
    return e;
  }
  throw new Error('nothing was thrown');
}

await test('a plain chat completion', [], async (m) => {
  const r = await m.client().chat.completions.create({
    model,
    messages: user('Grüße aus "Köln"\n'),
  });
  assert.equal(r.choices[0].message.content, 'Grüße aus "Köln"\n');
  assert.equal(r.choices[0].finish_reason, 'stop');
  assert.equal(r.object, 'chat.completion');
  assert.ok(r._request_id.startsWith('req_'));
  assert.equal(
    r.usage.total_tokens,
    r.usage.prompt_tokens + r.usage.completion_tokens,
  );
  const s = await m.stats();
  assert.deepEqual(s.responses, { 200: 1 });
  assert.equal(s.prompts_answered, 1);
  assert.deepEqual(await m.report(), { clean: true, findings: [] });
});

await test('n choices, stop and max_tokens', [], async (m) => {
  const r = await m.client().chat.completions.create({
    model,
    messages: user('one two three four'),
    n: 3,
    max_tokens: 2,
  });
  assert.deepEqual(r.choices.map((c) => c.index), [0, 1, 2]);
  assert.equal(r.choices[2].message.content, 'one two');
  assert.equal(r.choices[2].finish_reason, 'length');
  const s = await m.client().chat.completions.create({
    model,
    messages: user('one two three four'),
    stop: [' three'],
  });
  assert.equal(s.choices[0].message.content, 'one two');
  assert.equal(s.choices[0].finish_reason, 'stop');
});

for (const way of ['', 'crlf', 'comments', 'bytechunks', 'chunked', 'http10',
                   'hints', 'slow,bytes=7,ms=0']) {
  const options = way === '' ? [] : ['--fault', way];
  await test(`a stream ${way}`, options, async (m) => {
    const stream = await m.client().chat.completions.create({
      model,
      messages: user('Streams carry ünïcode 漢字 in pieces.'),
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = '';
    let usage = null;
    let finish = null;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? '';
      finish = chunk.choices[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, 'Streams carry ünïcode 漢字 in pieces.');
    assert.equal(finish, 'stop');
    assert.ok(usage.completion_tokens > 3);
  });
}

await test('the stream helper joins tool calls', [], async (m) => {
  const r = await m.client().chat.completions.stream({
    model,
    messages: user('x'),
    tools: [{
      type: 'function',
      function: {
        name: 'weather',
        parameters: {
          type: 'object',
          properties: { city: { type: 'string', enum: ['Rome'] } },
          required: ['city'],
        },
      },
    }],
    tool_choice: 'required',
  }).finalChatCompletion();
  const call = r.choices[0].message.tool_calls[0];
  assert.equal(r.choices[0].finish_reason, 'tool_calls');
  assert.equal(call.function.name, 'weather');
  assert.deepEqual(JSON.parse(call.function.arguments), { city: 'Rome' });
});

await test('an error in mid-stream is thrown', ['--fault', 'streamerror'],
  async (m) => {
    const stream = await m.client().chat.completions.create({
      model, messages: user('a b c d e f g h'), stream: true,
    });
    const e = await thrown((async () => {
      for await (const chunk of stream) void chunk;
    })());
    assert.match(e.message, /server had an error/);
  });

await test('a JSON schema is obeyed', [], async (m) => {
  const r = await m.client().chat.completions.create({
    model,
    messages: user('x'),
    response_format: {
      type: 'json_schema',
      json_schema: {
        name: 'entities',
        strict: true,
        schema: {
          type: 'object',
          properties: {
            names: { type: 'array', items: { type: 'string' }, minItems: 2 },
            label: { enum: ['PER', 'LOC'] },
            score: { type: 'number', minimum: 1 },
            next: { anyOf: [{ $ref: '#' }, { type: 'null' }] },
          },
          required: ['names', 'label', 'score', 'next'],
          additionalProperties: false,
        },
      },
    },
  });
  const v = JSON.parse(r.choices[0].message.content);
  assert.deepEqual(v.names, ['', '']);
  assert.equal(v.label, 'PER');
  assert.equal(v.score, 1);
});

await test('legacy completions', [], async (m) => {
  const r = await m.client().completions.create({
    model: 'gpt-3.5-turbo-instruct', prompt: ['a', 'b'], n: 2,
  });
  assert.deepEqual(r.choices.map((c) => c.text), ['a', 'a', 'b', 'b']);
  assert.deepEqual(r.choices.map((c) => c.index), [0, 1, 2, 3]);
  let text = '';
  const stream = await m.client().completions.create({
    model: 'gpt-3.5-turbo-instruct', prompt: 'a b c', stream: true,
  });
  for await (const c of stream) text += c.choices[0].text;
  assert.equal(text, 'a b c');
});

await test('embeddings, base64 and float', [], async (m) => {
  const c = m.client();
  const ask = { model: 'text-embedding-3-small', input: ['cat', 'dog'] };
  const a = await c.embeddings.create(ask); // the SDK asks for base64
  const b = await c.embeddings.create({ ...ask, encoding_format: 'float' });
  assert.equal(a.data.length, 2);
  assert.equal(a.data[0].embedding.length, 1536);
  for (let i = 0; i < 1536; i++) {
    assert.ok(Math.abs(a.data[1].embedding[i] - b.data[1].embedding[i]) < 1e-8);
  }
  const norm = Math.hypot(...b.data[0].embedding);
  assert.ok(Math.abs(norm - 1) < 1e-6, `length ${norm}`);
  const d = await c.embeddings.create({ ...ask, dimensions: 8 });
  assert.equal(d.data[0].embedding.length, 8);
});

await test('models', [], async (m) => {
  const list = [];
  for await (const one of m.client().models.list()) list.push(one.id);
  assert.ok(list.includes('gpt-4o-mini'));
  const one = await m.client().models.retrieve('gpt-4o-mini');
  assert.equal(one.object, 'model');
  const e = await thrown(m.client().models.retrieve('ft:no/such:model'));
  assert.ok(e instanceof OpenAI.NotFoundError);
  assert.equal(e.code, 'model_not_found');
});

await test('401 without the right key', ['--api-key', 'sk-right'],
  async (m) => {
    const ask = { model, messages: user('x') };
    const e = await thrown(m.client().chat.completions.create(ask));
    assert.ok(e instanceof OpenAI.AuthenticationError);
    assert.equal(e.code, 'invalid_api_key');
    assert.ok(!e.message.includes('sk-test'));
    const ok = await m.client({ apiKey: 'sk-right' })
      .chat.completions.create(ask);
    assert.equal(ok.choices[0].message.content, 'x');
  });

await test('400 says which parameter', [], async (m) => {
  const c = m.client().chat.completions;
  const cases = [
    [{ model, messages: user('x'), temperature: 3 }, 'temperature',
      'decimal_above_max_value'],
    [{ model, messages: user('x'), n: 0 }, 'n', 'integer_below_min_value'],
    [{ model, messages: [] }, 'messages', 'empty_array'],
    [{ model }, 'messages', 'missing_required_parameter'],
    [{ messages: user('x') }, null, null],
    [{ model, messages: user('x'), nonsense: 1 }, 'nonsense',
      'unknown_parameter'],
    [{ model, messages: [{ role: 'bot', content: 'x' }] }, 'messages[0].role',
      'invalid_value'],
    [{ model, messages: user(5) }, 'messages[0].content', 'invalid_type'],
    [{ model, messages: user('x'), response_format: { type: 'json_object' } },
      'messages', null],
    [{ model, messages: user('x'), stop: ['1', '2', '3', '4', '5'] }, 'stop',
      'array_above_max_length'],
    [{ model, messages: user('x'), tool_choice: 'auto' }, 'tool_choice', null],
    [{ model, messages: user('x'), stream_options: {} }, 'stream_options',
      null],
  ];
  for (const [body, param, code] of cases) {
    const e = await thrown(c.create(body));
    assert.ok(e instanceof OpenAI.BadRequestError, JSON.stringify(body));
    assert.equal(e.param, param, JSON.stringify(body));
    assert.equal(e.code, code, JSON.stringify(body));
    assert.equal(e.type, 'invalid_request_error');
  }
});

await test('404 for a wrong path and, with profiles, a wrong model',
  ['--model-profiles'], async (m) => {
    const c = m.client();
    const wrong = await thrown(c.post('/no/such/path', { body: {} }));
    assert.ok(wrong instanceof OpenAI.NotFoundError);
    assert.match(wrong.message, /Invalid URL \(POST \/v1\/no/);
    const none = await thrown(c.chat.completions.create(
      { model: 'gpt-99', messages: user('x') }));
    assert.equal(none.status, 404);
    assert.equal(none.code, 'model_not_found');
    const mixed = await thrown(c.chat.completions.create(
      { model: 'text-embedding-3-small', messages: user('x') }));
    assert.equal(mixed.status, 404);
    assert.match(mixed.message, /not a chat model/);
    const old = await thrown(c.chat.completions.create(
      { model: 'gpt-5.2', messages: user('x'), max_tokens: 5 }));
    assert.equal(old.code, 'unsupported_parameter');
    assert.equal(old.param, 'max_tokens');
    const hot = await thrown(c.chat.completions.create(
      { model: 'gpt-6-luna', messages: user('x'), temperature: 0 }));
    assert.equal(hot.code, 'unsupported_value');
    assert.match(hot.message, /only the default \(1\)/);
  });

await test('429 without retries is thrown with its headers',
  ['--fault', '429,retry-after=2'], async (m) => {
    const e = await thrown(m.client().chat.completions.create(
      { model, messages: user('x') }));
    assert.ok(e instanceof OpenAI.RateLimitError);
    assert.equal(e.code, 'rate_limit_exceeded');
    assert.equal(e.headers.get('retry-after'), '2');
  });

await test('the SDK waits out a 429 and the card stays clean',
  ['--fault', '429@1', '--fault', '429@2,retry-after=1'], async (m) => {
    const r = await m.client({ maxRetries: 2 }).chat.completions.create(
      { model, messages: user('x') });
    assert.equal(r.choices[0].message.content, 'x');
    const s = await m.stats();
    assert.deepEqual(s.responses, { 200: 1, 429: 2 });
    assert.deepEqual(s.faults, { 429: 2 });
    assert.equal((await m.report()).clean, true);
  });

await test('the SDK retries no quota, and the card says so',
  ['--fault', 'quota'], async (m) => {
    const e = await thrown(m.client({ maxRetries: 1 }).chat.completions.create(
      { model, messages: user('x') }));
    assert.equal(e.code, 'insufficient_quota');
    const r = await m.report();
    assert.equal(r.findings[0].code, 'retried_final');
  });

await test('a true rate limit lets 2 pass and names the wait',
  ['--rpm', '2'], async (m) => {
    const c = m.client().chat.completions;
    await c.create({ model, messages: user('a') });
    const r = await c.create({ model, messages: user('b') }).asResponse();
    assert.equal(r.headers.get('x-ratelimit-limit-requests'), '2');
    assert.equal(r.headers.get('x-ratelimit-remaining-requests'), '0');
    const e = await thrown(c.create({ model, messages: user('c') }));
    assert.equal(e.status, 429);
    assert.match(e.message, /Please try again in (29|30)/);
    assert.match(e.headers.get('retry-after'), /^(29|30)$/);
  });

for (const fault of ['500@1', '502@1', '503@1', '529@1', '408@1', '409@1',
                     'reset@1', 'lost@1', '400@1,should-retry=true']) {
  await test(`${fault} is survived by one retry`, ['--fault', fault],
    async (m) => {
      const r = await m.client({ maxRetries: 1 }).chat.completions.create(
        { model, messages: user('x') });
      assert.equal(r.choices[0].message.content, 'x');
      const s = await m.stats();
      assert.equal(s.prompts_answered_again, fault === 'lost@1' ? 1 : 0);
      assert.equal((await m.report()).clean, true);
    });
}

const proof = (text) =>
  createHash('sha256').update(`user\n${text}\n`).digest('hex').slice(0, 16);

await test('the Azure client', [], async (m) => {
  const azure = new AzureOpenAI({
    apiKey: 'k', apiVersion: '2024-10-21', deployment: 'my-deployment',
    endpoint: m.baseURL.replace('/v1', ''), maxRetries: 0,
  });
  const r = await azure.chat.completions.create(
    { model: 'ignored', messages: user('azure') });
  assert.equal(r.choices[0].message.content, 'azure');
  assert.equal(r.model, 'my-deployment');
});

await test('a hundred prompts at once, with faults, none lost',
  ['--reply', 'hash', '--fault', '429:0.05', '--fault', '500:0.03',
   '--fault', 'reset:0.02'], async (m) => {
    const c = m.client({ maxRetries: 8 });
    await Promise.all([...Array(100).keys()].map(async (i) => {
      const r = await c.chat.completions.create(
        { model, messages: user(`prompt ${i}`) });
      assert.equal(r.choices[0].message.content, proof(`prompt ${i}`));
    }));
    const s = await m.stats();
    assert.equal(s.prompts_answered, 100);
    assert.equal(s.prompts_answered_again, 0);
  });

// ---- files and batches ----

const endpoint = '/v1/chat/completions';
const row = (i, more = {}) => JSON.stringify({
  custom_id: `r${i}`, method: 'POST', url: endpoint,
  body: { model, messages: user(`prompt ${i}`) }, ...more,
});
const upload = (c, lines, name = 'in.jsonl') =>
  toFile(Buffer.from(lines.join('\n') + '\n'), name).then((file) =>
    c.files.create({ file, purpose: 'batch' }));
const begin = (c, file, more = {}) => c.batches.create({
  input_file_id: file.id, endpoint, completion_window: '24h', ...more,
});
const range = (n) => [...Array(n).keys()];
const lines = async (c, id) =>
  (await (await c.files.content(id)).text()).trim().split('\n')
    .map((line) => JSON.parse(line));
const slow = ['--batch-seconds', '1000', '--reply', 'hash'];

// The mock's date moves on; nobody waits.
const pass = async (m, seconds) => {
  const r = await fetch(m.baseURL.replace('/v1', '/mock/clock'), {
    method: 'POST', body: JSON.stringify({ advance_seconds: seconds }),
  });
  assert.equal(r.status, 200);
};

await test('a batch from upload to answers', slow, async (m) => {
  const c = m.client();
  const file = await upload(c, range(50).map((i) => row(i)),
    'größe "1".jsonl');
  assert.equal(file.object, 'file');
  assert.equal(file.filename, 'größe "1".jsonl');
  assert.equal(file.purpose, 'batch');
  assert.equal(file.expires_at, file.created_at + 30 * 86400);
  assert.deepEqual(await c.files.retrieve(file.id), file);
  const metadata = { gptner_job: 'job-1', ü: 'ö' };
  let b = await begin(c, file, { metadata });
  assert.equal(b.status, 'validating');
  assert.deepEqual(b.metadata, metadata);
  assert.equal(b.expires_at, b.created_at + 86400);
  await pass(m, 500);
  b = await c.batches.retrieve(b.id);
  assert.equal(b.status, 'in_progress');
  assert.deepEqual(b.request_counts, { total: 50, completed: 25, failed: 0 });
  await pass(m, 475);
  b = await c.batches.retrieve(b.id);
  assert.equal(b.status, 'finalizing');
  assert.equal(b.output_file_id, null);
  await pass(m, 25);
  b = await c.batches.retrieve(b.id);
  assert.equal(b.status, 'completed');
  assert.equal(b.error_file_id, null);
  assert.equal(b.request_counts.completed, 50);
  assert.equal(b.usage.total_tokens,
    b.usage.input_tokens + b.usage.output_tokens);
  const answers = await lines(c, b.output_file_id);
  assert.equal(answers.length, 50);
  assert.notDeepEqual(answers.map((a) => a.custom_id),
    range(50).map((i) => `r${i}`));
  for (const a of answers) {
    assert.equal(a.response.status_code, 200);
    assert.equal(a.error, null);
    assert.equal(a.response.body.choices[0].message.content,
      proof(`prompt ${a.custom_id.slice(1)}`));
  }
  for (const id of [file.id, b.output_file_id]) {
    assert.deepEqual(await c.files.delete(id),
      { id, object: 'file', deleted: true });
  }
  const s = await m.stats();
  assert.equal(s.files_stored, 0);
  assert.deepEqual(s.batches_by_job, { 'job-1': 1 });
  assert.equal(s.batch_lines_billed, 50);
  assert.equal(s.batch_lines_billed_again, 0);
  assert.deepEqual(await m.report(), { clean: true, findings: [] });
});

await test('the SDK waits for a file, and streams its content',
  ['--batch-seconds', '0'], async (m) => {
    const c = m.client();
    const file = await c.files.waitForProcessing(
      (await upload(c, range(3000).map((i) => row(i)))).id);
    const b = await begin(c, file);
    const done = await c.batches.retrieve(b.id);
    assert.equal(done.status, 'completed');
    let bytes = 0;
    const response = await c.files.content(done.output_file_id);
    for await (const piece of response.body) bytes += piece.length;
    assert.equal(bytes, (await c.files.retrieve(done.output_file_id)).bytes);
    assert.ok(bytes > 1000000);
  });

await test('a batch that fails validation names code and line', slow,
  async (m) => {
    const c = m.client();
    const file = await upload(c, [row(0), 'no json', row(0), row(1,
      { body: { model: 'gpt-4o' } }), row(2, { url: '/v1/embeddings' })]);
    const b = await begin(c, file);
    await pass(m, 30);
    const failed = await c.batches.retrieve(b.id);
    assert.equal(failed.status, 'failed');
    assert.ok(failed.failed_at >= failed.created_at + 30);
    assert.deepEqual(failed.errors.data.map((e) => [e.code, e.line]), [
      ['invalid_json_line', 2], ['duplicate_custom_id', 3],
      ['model_mismatch', 4], ['url_mismatch', 5]]);
    assert.ok(failed.errors.data.every((e) => e.message.length > 0));
    assert.equal(failed.output_file_id, null);
  });

await test('a batch is cancelled; again is a conflict', slow, async (m) => {
  const c = m.client();
  const b = await begin(c, await upload(c, range(10).map((i) => row(i))));
  await pass(m, 500);
  const stopping = await c.batches.cancel(b.id);
  assert.equal(stopping.status, 'cancelling');
  await pass(m, 600);
  const over = await c.batches.retrieve(b.id);
  assert.equal(over.status, 'cancelled');
  assert.ok(over.cancelled_at > over.cancelling_at);
  assert.equal((await lines(c, over.output_file_id)).length, 5);
  const left = await lines(c, over.error_file_id);
  assert.equal(left.length, 5);
  assert.ok(left.every((l) => l.response === null &&
    l.error.code === 'batch_cancelled'));
  const e = await thrown(c.batches.cancel(b.id));
  assert.ok(e instanceof OpenAI.ConflictError);
  assert.match(e.message, /Cannot cancel a batch with status/);
});

await test('rows that fail are in the error file',
  [...slow, '--fault', 'row-429@every=5', '--fault', 'row-u2028',
   '--fault', 'row-crlf'], async (m) => {
    const c = m.client();
    const b = await begin(c, await upload(c, [...range(9).map((i) => row(i)),
      row(9, { body: { model, messages: [] } })]));
    await pass(m, 1000);
    const done = await c.batches.retrieve(b.id);
    assert.equal(done.status, 'completed');
    assert.deepEqual(done.request_counts,
      { total: 10, completed: 8, failed: 2 });
    assert.equal((await lines(c, done.output_file_id)).length, 8);
    const errors = await lines(c, done.error_file_id);
    assert.deepEqual(errors.map((l) => l.response.status_code).sort(),
      [429, 429]);
    assert.equal(errors[0].response.body.error.code, 'rate_limit_exceeded');
  });

await test('lists of files and batches page by themselves', slow,
  async (m) => {
    const c = m.client();
    const file = await upload(c, [row(0)]);
    const made = [];
    for (const _ of range(7)) made.unshift((await begin(c, file)).id);
    const seen = [];
    for await (const b of c.batches.list({ limit: 3 })) seen.push(b.id);
    assert.deepEqual(seen, made);
    const page = await c.batches.list({ limit: 3 });
    assert.equal(page.data.length, 3);
    assert.ok(page.hasNextPage());
    await pass(m, 1000);
    const files = [];
    for await (const f of c.files.list(
      { limit: 2, purpose: 'batch_output' })) files.push(f.id);
    assert.equal(new Set(files).size, 7);
    const all = [];
    for await (const f of c.files.list({ limit: 3, order: 'asc' })) all.push(f);
    assert.equal(all.length, 8);
    assert.equal(all[0].id, file.id);
  });

await test('errors of files and batches are the SDK\'s own', [], async (m) => {
  const c = m.client();
  const e = await thrown(upload(c, [row(0)], 'in.txt'));
  assert.ok(e instanceof OpenAI.BadRequestError);
  assert.match(e.message, /Invalid file format for Batch API/);
  assert.ok(await thrown(c.files.retrieve('file-x')) instanceof
    OpenAI.NotFoundError);
  assert.ok(await thrown(c.files.delete('file-x')) instanceof
    OpenAI.NotFoundError);
  assert.ok(await thrown(c.files.content('file-x')) instanceof
    OpenAI.NotFoundError);
  assert.equal((await thrown(c.batches.retrieve('batch_x'))).code,
    'batch_not_found');
  const b = await thrown(c.batches.create({ endpoint, input_file_id: 'x' }));
  assert.equal(b.code, 'missing_required_parameter');
  assert.equal(b.param, 'completion_window');
});

await test('content that is elsewhere is followed, without the key',
  ['--fault', 'content-redirect'], async (m) => {
    const c = m.client();
    const file = await upload(c, [row(0)]);
    const text = await (await c.files.content(file.id)).text();
    assert.equal(text, row(0) + '\n');
    assert.deepEqual(await m.report(), { clean: true, findings: [] });
  });

await test('a lost reply of a creation makes the SDK create twice',
  [...slow, '--fault', 'lost-reply@batches@1'], async (m) => {
    const c = m.client({ maxRetries: 1 });
    await begin(c, await upload(c, [row(0)]),
      { metadata: { gptner_job: 'j' } });
    assert.deepEqual((await m.stats()).batches_by_job, { j: 2 });
    assert.equal((await m.report()).findings[0].code, 'created_twice');
  });

const version = JSON.parse(readFileSync(
  new URL('node_modules/openai/package.json', import.meta.url))).version;
console.log(`openai ${version} on node ${process.version}`);
console.log(`[  PASSED  ] ${passed} test(s).`);
if (failed > 0) console.log(`[  FAILED  ] ${failed} test(s).`);
process.exitCode = failed === 0 ? 0 : 1;
