// Makes dist/page.js and dist/page.css of the sources. `node build.mjs check` compares
// them with what is there, and fails if they differ.
import { build } from 'esbuild';
import { readFileSync } from 'node:fs';

const check = process.argv[2] === 'check';
const result = await build({
  absWorkingDir: import.meta.dirname,
  entryPoints: { page: 'src/main.jsx' },
  outdir: 'dist',
  bundle: true,
  minify: true,
  write: !check,
  format: 'iife',
  target: ['chrome100', 'firefox100', 'safari15.4'],
  jsx: 'automatic',
  jsxImportSource: 'preact',
  charset: 'utf8',
  legalComments: 'inline',
});
for (const file of check ? result.outputFiles : []) {
  let old = '';
  try {
    old = readFileSync(file.path, 'utf8');
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
  if (old !== file.text) {
    console.error(`${file.path} is not what the sources give: run npm run build in web/ and commit it`);
    process.exitCode = 1;
  }
}
