// Before anything is painted: the colours that were chosen here, if any, and that there is a script.
"use strict";
document.documentElement.classList.add("js");
try {
  const theme = localStorage.getItem("keepwarm-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // No storage: the system's colours.
}
