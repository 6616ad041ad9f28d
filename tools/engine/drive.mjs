// SPDX-License-Identifier: MIT
// drive.mjs - run llama.cpp (node-llama-cpp's prebuilt) on one model and say
// what it did: tokens, time and bytes read per token, as JSON on stdout.
//
// Owns: one load, one prompt, K greedily decoded tokens. What is timed is
// the engine's own decode and nothing of the driver's: the figures between
// two tokens are one read of /proc/self/io and one of a clock.
//
// 1. Greedy, the end-of-text token does not end it: the same tokens every
//    time, as many as asked for.
// 2. The engine's own check that a model fits the memory is off: whether it
//    fits is what is being tested.
// 3. bytes[i], written[i] and ms[i] belong to tokens[i]; the first includes the
//    prompt, which is the same tokens every time, as many as asked for.
// 4. sure[i] is the probability the engine gave tokens[i]: where the tokens are
//    the same by luck, it is not.

import {createRequire} from "node:module";
import fs from "node:fs";
import path from "node:path";
import {parseArgs} from "node:util";
import {pathToFileURL} from "node:url";

const PROMPT = [1, 300, 271, 314, 275, 309];	// any tokens: never changes
const WORDS = 320;		// the least tokens a model has

const {values: opt, positionals} = parseArgs({
	allowPositionals: true,
	options: {
		tokens: {type: "string", default: "8"},
		threads: {type: "string", default: "2"},
		context: {type: "string", default: "256"},
		prompt: {type: "string", default: String(PROMPT.length)},
		batch: {type: "string", default: "32"},
		engine: {type: "string"},
		// A file that counts something: hits of the limit.
		watch: {type: "string", default: process.env.DEMO_FAILS},
		"no-mmap": {type: "boolean", default: false},
		info: {type: "boolean", default: false},
		progress: {type: "boolean", default: false},
		"wait-file": {type: "string"},	// begin to decode when it exists
	},
});

function fail(message) {
	process.stderr.write(`drive: ${message}\n`);
	process.exit(1);
}

async function loadEngine() {
	if (!opt.engine)
		fail("no --engine DIR");
	const require = createRequire(path.resolve(opt.engine, "package.json"));
	return import(pathToFileURL(require.resolve("node-llama-cpp")).href);
}

function ioCounters() {
	const text = fs.readFileSync("/proc/self/io", "utf8");
	return {
		read: Number(/^read_bytes: (\d+)/m.exec(text)[1]),
		written: Number(/^write_bytes: (\d+)/m.exec(text)[1]),
	};
}

function watched() {
	if (!opt.watch)
		return 0;
	const text = fs.readFileSync(opt.watch, "utf8");
	return Number(/^(?:max )?(\d+)$/m.exec(text)?.[1] ?? 0);
}

// Bytes of a tensor that a decode pass reads: all of them, except the
// embedding table of a model with an output matrix of its own (one row).
async function modelInfo(llama, file) {
	const info = await llama.readGgufFileInfo(file, {logWarnings: false});
	const size = fs.statSync(file).size;
	const data = size - Number(info.totalTensorDataOffset ??
		info.tensorInfo[0].fileOffset);
	const embd = info.fullTensorInfo.find((t) => t.name === "token_embd.weight");
	const own = info.fullTensorInfo.some((t) => t.name === "output.weight");
	const arch = info.metadata.general.architecture;
	const starts = info.fullTensorInfo.map((t) => Number(t.offset)).sort((a, b) => a - b);
	let skipped = 0;
	if (embd && own) {
		const i = starts.indexOf(Number(embd.offset));
		skipped = (starts[i + 1] ?? data) - starts[i];
	}
	return {
		file_bytes: size,
		pass_bytes: data - skipped,
		experts: Number(info.metadata[arch]?.expert_count ?? 0),
	};
}

function anonymousKiB() {
	const text = fs.readFileSync("/proc/self/status", "utf8");
	return Number(/^RssAnon:\s+(\d+)/m.exec(text)?.[1] ?? 0);
}

async function waitFor(file) {
	while (!fs.existsSync(file))
		await new Promise((done) => setTimeout(done, 20));
}

// As long as asked for: after the ones that never change, as good as random.
function prompt() {
	const out = PROMPT.slice(0, Number(opt.prompt));
	for (let r = 1; out.length < Number(opt.prompt);) {
		r = (r * 16807) % 2147483647;
		out.push(3 + r % (WORDS - 3));
	}
	return out;
}

async function decode(sequence, count) {
	const out = {tokens: [], sure: [], ms: [], bytes: [], written: [], watched: []};
	let time = performance.now(), before = ioCounters(), seen = watched();
	const options = {temperature: 0, yieldEogToken: true};
	const all = sequence.evaluateWithMetadata(prompt(), {confidence: true}, options);

	for await (const {token, confidence} of all) {
		const now = performance.now(), io = ioCounters(), w = watched();
		out.tokens.push(Number(token));
		out.sure.push(confidence);
		out.ms.push(Math.round((now - time) * 1000) / 1000);
		out.bytes.push(io.read - before.read);
		out.written.push(io.written - before.written);
		out.watched.push(w - seen);
		if (opt.progress)
			process.stderr.write(`\r  token ${out.tokens.length} of ` +
				`${count}: ${((now - time) / 1000).toFixed(2)} s   `);
		if (out.tokens.length >= count)
			break;
		time = performance.now();
		before = ioCounters();
		seen = watched();
	}
	if (opt.progress)
		process.stderr.write("\n");
	return out;
}

async function main() {
	if (positionals.length !== 1)
		fail("usage: drive.mjs [options] MODEL.gguf");
	const file = positionals[0];
	const llama = await loadEngine();
	if (opt.info) {
		console.log(JSON.stringify(await modelInfo(llama, file)));
		return;
	}
	const start = performance.now(), io = ioCounters();
	const engine = await llama.getLlama({
		build: "never", gpu: false, usePrebuiltBinaries: true,
		progressLogs: false, skipDownload: true,
		logLevel: llama.LlamaLogLevel.error,
		maxThreads: Number(opt.threads),
	});
	const loadStart = performance.now();
	const model = await engine.loadModel({
		modelPath: file, useMmap: !opt["no-mmap"], gpuLayers: 0,
		ignoreMemorySafetyChecks: true,
	});
	const context = await model.createContext({
		contextSize: Number(opt.context), batchSize: Number(opt.batch), sequences: 1,
		threads: Number(opt.threads), ignoreMemorySafetyChecks: true,
	});
	const loaded = performance.now();
	const loadBytes = ioCounters().read - io.read;
	if (opt["wait-file"])
		await waitFor(opt["wait-file"]);
	const out = await decode(context.getSequence(), Number(opt.tokens));

	console.log(JSON.stringify({
		engine: "llama.cpp", start_ms: Math.round(loadStart - start),
		load_ms: Math.round(loaded - loadStart), load_bytes: loadBytes,
		anon_kib: anonymousKiB(), ...out,
	}));
	// The engine's own teardown takes long and shows nothing.
	process.exitCode = 0;
	await context.dispose();
	await model.dispose();
	await engine.dispose();
}

await main();
