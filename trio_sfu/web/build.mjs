// Bundles the pages into dist/ (and with --test, the browser tests' client into tests/browser/dist/).
// Called by hatch_build.py with its own Node; reads nothing outside the checkout and node_modules.

import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const web = dirname(fileURLToPath(import.meta.url));
const src = join(web, "src");
const dist = join(web, "dist");
const modules = join(web, "node_modules");

const common = {
  absWorkingDir: web,
  bundle: true,
  charset: "utf8",
  legalComments: "none", // the licences go into licenses.txt, whole
  logLevel: "warning",
  metafile: true,
  nodePaths: [modules],
  target: ["es2022"],
};

/** The licence texts of every npm package that ended in a bundle: their authors ask for no more than that. */
async function licenceTexts(metafile) {
  const names = new Set();
  for (const input of Object.keys(metafile.inputs)) {
    const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (found) names.add(found[1]);
  }
  const parts = [];
  for (const name of [...names].sort()) {
    const folder = join(modules, name);
    const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file ? await readFile(join(folder, file), "utf8") : `Licence: ${license}`;
    parts.push(`${name} ${version}\n\n${text.trim()}\n`);
  }
  return parts.join(`\n${"-".repeat(80)}\n\n`);
}

async function buildPages() {
  // Built beside its place and then moved there: a server that is running never sees half a build.
  const fresh = join(web, "dist.new");
  await rm(fresh, { recursive: true, force: true });
  const assets = join(fresh, "assets");
  const { metafile } = await build({
    ...common,
    entryPoints: ["index.ts", "room.ts", "watch.ts", "style.css"].map((name) => join(src, name)),
    entryNames: "[name]-[hash]",
    format: "esm",
    minify: true,
    outdir: assets,
  });
  const hashed = new Map();
  for (const [output, { entryPoint }] of Object.entries(metafile.outputs)) {
    if (entryPoint) hashed.set(basename(entryPoint), `/assets/${basename(output)}`);
  }
  for (const page of ["index.html", "room.html", "watch.html"]) {
    const html = await readFile(join(src, page), "utf8");
    const rewritten = html.replace(/(src|href)="\.\/([^"]+)"/g, (_, attribute, name) => {
      const url = hashed.get(name);
      if (!url) throw new Error(`${page} asks for ${name}, which is not built`);
      return `${attribute}="${url}"`;
    });
    await writeFile(join(fresh, page), rewritten);
  }
  await writeFile(join(fresh, "licenses.txt"), await licenceTexts(metafile));
  await rm(dist, { recursive: true, force: true });
  await rename(fresh, dist);
}

async function buildTestClient() {
  const tests = resolve(web, "../../tests/browser");
  const entry = join(tests, "client", "index.ts");
  if (!existsSync(entry)) throw new Error(`${relative(process.cwd(), entry)} is not there`);
  await mkdir(join(tests, "dist"), { recursive: true });
  await build({
    ...common,
    entryPoints: [entry],
    format: "iife",
    outfile: join(tests, "dist", "client.js"),
    sourcemap: "inline",
  });
}

const wanted = process.argv.slice(2);
if (!wanted.includes("--test-only")) await buildPages();
if (wanted.includes("--test") || wanted.includes("--test-only")) await buildTestClient();
