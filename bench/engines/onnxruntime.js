// The engine ONNX Runtime for the bench (bench/speed says how engines are talked to), from the npm package onnxruntime-node.
// Usage: node onnxruntime.js PACKAGES MODEL THREADS INPUT DIM,DIM,...
"use strict";
const fs = require("fs");
const path = require("path");
const readline = require("readline");

const status = (field) => Number(fs.readFileSync("/proc/self/status", "ascii").match(new RegExp(field + ":\\s+(\\d+)"))[1]);
const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");

async function main() {
  const [packages, model, threads, input, shape] = process.argv.slice(2);
  const base = status("VmRSS"); // node itself: not the engine's
  const folder = path.join(packages, "node_modules", "onnxruntime-node");
  const ort = require(folder);
  const session = await ort.InferenceSession.create(model, {
    executionProviders: ["cpu"],
    graphOptimizationLevel: "all",
    intraOpNumThreads: Number(threads),
    interOpNumThreads: 1,
    executionMode: "sequential",
    // A worker that spins while another engine has its turn would slow that one, and its own caller where cores are shared.
    extra: { session: { intra_op: { allow_spinning: "0" } } },
  });
  const bytes = fs.readFileSync(input);
  const numbers = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", numbers, shape.split(",").map(Number)) };
  // Later outputs are written where those of the first run lie: nothing is allocated per frame.
  const fetches = await session.run(feeds);
  let results = fetches;
  say({ engine: "ONNX Runtime", version: require(path.join(folder, "package.json")).version, base_kb: base });

  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [command, argument] = line.split(" ");
    if (command === "run") {
      const ns = [];
      for (let i = 0; i < Number(argument); i++) {
        const start = process.hrtime.bigint();
        results = await session.run(feeds, fetches);
        ns.push(Number(process.hrtime.bigint() - start));
      }
      say({ ns });
    } else if (command === "save") {
      const files = session.outputNames.map((name, i) => {
        const data = results[name].data;
        fs.writeFileSync(`${argument}.${i}`, Buffer.from(data.buffer, data.byteOffset, data.byteLength));
        return `${argument}.${i}`;
      });
      say({ files });
    } else if (command === "memory") {
      say({ peak_kb: status("VmHWM") });
    }
  }
}

main().catch((error) => {
  say({ error: String(error.message || error) });
  process.exitCode = 1;
});
