// What the tests do in JupyterLab's page, through its own application object. `evaluate` waits for a promise
// without any limit, so what may hang is given one here.
window.player = {
  panel(path) {
    return [...jupyterapp.shell.widgets('main')].find((panel) => panel.context?.path === path);
  },
  cells(path) {
    return this.panel(path).content.widgets;
  },
  limited(work, milliseconds, complaint) {
    const limit = new Promise((_, fail) => setTimeout(() => fail(new Error(complaint)), milliseconds));
    return Promise.race([work, limit]);
  },
  async open(path) {
    const panel = await jupyterapp.commands.execute('docmanager:open', { path, factory: 'Notebook' });
    const ready = panel.context.ready.then(() => panel.revealed).then(() => panel.sessionContext.ready);
    await this.limited(ready, 300_000, `${path} has no kernel after five minutes; does it name one?`);
  },
  async runAll(path, milliseconds) {
    jupyterapp.shell.activateById(this.panel(path).id);
    const run = jupyterapp.commands.execute('notebook:run-all-cells');
    await this.limited(run, milliseconds, `cells still run after ${milliseconds} ms`);
  },
  async runCell(path, number) {
    jupyterapp.shell.activateById(this.panel(path).id);
    this.panel(path).content.deselectAll();
    this.panel(path).content.activeCellIndex = number;
    await this.limited(jupyterapp.commands.execute('notebook:run-cell'), 900_000, 'the cell still runs');
  },
  sources(path) {
    return this.cells(path).map((cell) => cell.model.sharedModel.getSource());
  },
  setSource(path, number, source) {
    this.cells(path)[number].model.sharedModel.setSource(source);
  },
  failures(path) {
    const code = this.cells(path).filter((cell) => cell.model.type === 'code');
    return code.flatMap((cell) => cell.model.outputs.toJSON()
      .filter((output) => output.output_type === 'error')
      .map((output) => `${output.ename}: ${output.evalue} in the cell\n${cell.model.sharedModel.getSource()}`));
  },
  async closeAll() {
    document.querySelectorAll('.jp-Dialog button.jp-mod-reject').forEach((button) => button.click());
    for (const panel of [...jupyterapp.shell.widgets('main')]) {
      await panel.sessionContext?.shutdown().catch(() => {});
      panel.dispose();
    }
  },
  async setTheme(theme) {
    await jupyterapp.commands.execute('apputils:change-theme', { theme }); // fades in behind a splash
  },
  height(path) { // of a page in which the whole notebook is to be seen
    const scroller = this.panel(path).node.querySelector('.jp-WindowedPanel-outer');
    scroller.scrollTop = 0;
    const last = this.cells(path).at(-1).node.getBoundingClientRect();
    return Math.max(window.innerHeight, Math.ceil(last.bottom) + window.innerHeight - scroller.getBoundingClientRect().bottom + 20);
  },
};
