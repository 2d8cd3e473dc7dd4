// The reference is whole without this: it only lets a person choose the theme.

import { byId } from "./elements.js";
import { theme } from "./theme.js";

byId("theme").hidden = false;
theme(byId("theme"));
