// Dark and light. The system's choice holds until a person makes another, which a reload forgets.

const dark = matchMedia("(prefers-color-scheme: dark)");

/// Lets a button change between the two.
export function theme(button) {
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const tell = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    button.title = isDark() ? "Light theme" : "Dark theme";
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    tell();
  });
  dark.addEventListener("change", tell);
  tell();
}
