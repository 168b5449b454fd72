// What the tests ask of a panel: what is to be read in it, with its contrast, and which controls have no name.
window.readable = {
  async read(panel) {
    const fading = document.getAnimations().filter((one) => one instanceof CSSTransition);
    await Promise.all(fading.map((one) => one.finished.catch(() => {})));
    const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
    const brush = canvas.getContext('2d', {willReadFrequently: true});
    const paint = (colour, opacity) => {
      brush.globalAlpha = opacity;
      brush.fillStyle = colour;
      brush.fillRect(0, 0, 1, 1);
    };
    const luminance = () => {
      const [r, g, b] = [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {
        const share = value / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const above = (element) => {
      const found = [];
      for (let one = element; one; one = one.parentElement) found.unshift(one);
      return found;
    };
    const colours = /(?:color|rgba?|hsla?|color-mix)\([^()]*\)/g;
    // On a gradient a letter may stand on each of its colours.
    const shades = (style) => [style.backgroundColor, ...(style.backgroundImage.match(colours) ?? [])];
    const background = (chain, gradient) => {
      paint('white', 1);
      let opacity = 1;
      for (const element of chain) {
        const style = getComputedStyle(element);
        opacity *= Number(style.opacity);
        const [plain, ...others] = shades(style);
        paint(plain, opacity);
        if (others.length) paint(others[Math.min(gradient, others.length - 1)], opacity);
      }
      return opacity;
    };
    const contrast = (element, colour) => {
      const chain = above(element);
      const worst = [0, 1].map((gradient) => {
        const opacity = background(chain, gradient);
        const below = luminance();
        paint(colour, opacity);
        const text = luminance();
        return (Math.max(text, below) + 0.05) / (Math.min(text, below) + 0.05);
      });
      return Math.min(...worst);
    };
    const isShown = (element) => element.checkVisibility({opacityProperty: true, visibilityProperty: true})
      && element.getClientRects().length > 0;
    const read = [];
    const look = (element, text, colour) => {
      if (!text.trim() || !isShown(element) || element.closest(':disabled, [aria-disabled=true]')) return;
      read.push([Math.round(100 * contrast(element, colour)) / 100, text.trim().slice(0, 60), element.className]);
    };
    for (const element of panel.querySelectorAll('*')) {
      const own = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
      look(element, own.map((node) => node.data).join(' '), getComputedStyle(element).color);
      const sign = getComputedStyle(element, '::before');
      if (sign.content.startsWith('"')) look(element, sign.content, sign.color);
      if (element.placeholder) look(element, element.placeholder, getComputedStyle(element, '::placeholder').color);
      if ('value' in element && element.tagName === 'INPUT') look(element, element.value, getComputedStyle(element).color);
    }
    return read;
  },
  nameless(panel) {
    const named = (element) => [
      element.getAttribute('aria-label'), element.alt, element.title, element.textContent,
      ...[...(element.labels ?? [])].map((label) => label.textContent),
      ...(element.getAttribute('aria-labelledby') ?? '').split(' ').map((id) => document.getElementById(id)?.textContent),
    ].some((name) => name?.trim());
    const selector = 'button, input, select, textarea, img, summary, [role=slider], [role=tree], [role=treeitem]'
      + ', [role=progressbar]';
    return [...panel.querySelectorAll(selector)]
      .filter((element) => element.checkVisibility({visibilityProperty: true}) && element.type !== 'file')
      .filter((element) => !(element.tagName === 'SELECT' ? element.labels?.length || element.ariaLabel : named(element)))
      .map((element) => element.outerHTML.slice(0, 200));
  },
};
