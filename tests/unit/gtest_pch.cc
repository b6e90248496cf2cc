// Gives the precompiled GoogleTest header a home; the tests reuse it.
