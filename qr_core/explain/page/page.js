"use strict";
// Shades words by the sum of the masses of the heads that are switched on. Values come as shares of `largest`.
(() => {
  const data = JSON.parse(document.getElementById("masses").textContent);
  const boxes = [...document.querySelectorAll("[data-head]")];
  const value = document.getElementById("value");
  const documents = [...document.querySelectorAll("article")].map((article, place) => ({
    masses: data.masses[place],
    words: [...article.querySelectorAll(".w")],
  }));
  const all = documents.flatMap((one) => one.words);

  // Dark text on a light blue that darkens with the mass; white text once it is dark.
  const shade = (word, share) => {
    const light = 100 - 75 * Math.sqrt(Math.max(0, share));
    word.style.background = share > 0.002 ? `hsl(212 80% ${light}%)` : "";
    word.style.color = light < 55 ? "#fff" : "";
  };

  const draw = () => {
    const on = boxes.filter((box) => box.checked).map((box) => Number(box.dataset.head));
    let most = 0;
    for (const one of documents) {
      one.sums = one.words.map((word) => {
        const place = Number(word.dataset.w);
        return on.reduce((sum, head) => sum + one.masses[head].at(place), 0);
      });
      most = Math.max(most, ...one.sums);
    }
    for (const one of documents) one.words.forEach((word, i) => shade(word, most > 0 ? one.sums[i] / most : 0));
  };

  // As many decimals as the scores have; what rounds to nothing has no sign.
  const decimals = (mass) => (Math.abs(mass) < 5e-5 ? 0 : mass).toFixed(4);

  const tell = (word) => {
    const one = documents.find((some) => some.words.includes(word));
    const sum = one.sums[one.words.indexOf(word)] * data.largest;
    const place = Number(word.dataset.w);
    const best = boxes
      .filter((box) => box.checked)
      .map((box) => [one.masses[Number(box.dataset.head)].at(place) * data.largest, box.parentNode.textContent.trim()])
      .sort((a, b) => b[0] - a[0])
      .slice(0, 3)
      .map(([mass, name]) => `head ${name} ${decimals(mass)}`);
    value.textContent = `${word.textContent}: ${decimals(sum)}${best.length ? ` (${best.join(", ")})` : ""}`;
  };

  for (const word of all) word.tabIndex = -1;
  if (all.length) all[0].tabIndex = 0;
  document.addEventListener("mouseover", (event) => event.target.matches(".w") && tell(event.target));
  document.addEventListener("focusin", (event) => event.target.matches(".w") && tell(event.target));
  document.addEventListener("keydown", (event) => {
    const at = all.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (at < 0 || !step || !all[at + step]) return;
    all[at].tabIndex = -1;
    all[at + step].tabIndex = 0;
    all[at + step].focus();
    event.preventDefault();
  });
  for (const box of boxes) box.addEventListener("change", draw);
  const set = (checked) => () => {
    for (const box of boxes) box.checked = checked;
    draw();
  };
  document.getElementById("all").addEventListener("click", set(true));
  document.getElementById("none").addEventListener("click", set(false));
  draw();
})();
