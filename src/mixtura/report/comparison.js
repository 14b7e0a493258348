"use strict";
// The page of a comparison is all text; of the kit it needs light and dark.
kit();
