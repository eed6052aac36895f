// Colours, signing in, and the state of the connection; then it begins.

const THEME_KEY = "heimdall-theme";
const THEMES = [["", "◐", "as the system has them"], ["light", "☀", "light"], ["dark", "☾", "dark"]];

function theme() {
  try { return localStorage.getItem(THEME_KEY) || ""; } catch { return document.documentElement.dataset.theme || ""; }
}

function wear(name) {
  const [, sign, words] = THEMES.find(([known]) => known === name) || THEMES[0];
  document.documentElement.dataset.theme = name;
  say($("theme"), sign);
  $("theme").title = `Colours: ${words}`;
  $("theme").setAttribute("aria-label", `Colours: ${words}`);
}

$("theme").addEventListener("click", () => {
  const place = THEMES.findIndex(([known]) => known === document.documentElement.dataset.theme);
  const next = THEMES[(place + 1) % THEMES.length][0];
  try { localStorage.setItem(THEME_KEY, next); } catch { /* For this page only. */ }
  wear(next);
});
wear(theme());

function tellAccess(isNeeded) {
  show($("token-form"), isNeeded);
  document.body.classList.toggle("signed-out", isNeeded);
  show($("sign-out"), !isNeeded && Boolean(safe.read()));
}

on("access", ({ needed, why }) => {
  if (needed && safe.read()) {
    safe.write(null);
    notice($("token-error"), why);
  }
  const wasShown = !$("token-form").hidden;
  tellAccess(needed);
  if (needed && !wasShown) $("token").focus();
});

$("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  notice($("token-error"), "");
  try {
    await signIn($("token").value.trim());
    $("token").value = "";
    $("main").focus();
  } catch (error) {
    notice($("token-error"), error.status === 401 ? "The node does not take this token." : plainly(error));
  }
});
$("sign-out").addEventListener("click", () => { safe.write(null); location.reload(); });

const LINKS = { good: "Live", wait: "Signed out", bad: "Connection lost" };
on("link", ({ state, detail }) => {
  $("link").dataset.state = state;
  say($("link"), LINKS[state]);
  notice($("lost"), state === "bad" ? `Connection lost, trying again. ${detail || "What you see is what was last known."}` : "");
  if (state === "good") tellAccess(false);
});

stayLinked();
