"""Texts that a model could write to make a careless page run a script, reach out, or hang."""

MARK = "window.pwned=1"

MARKUP = [
    f"<img src=x onerror={MARK}><script>{MARK}</script>",
    f"<script>{MARK}</script>",
    f"</script><script>{MARK}</script>",
    f"<!--<script>{MARK}//--></script>",
    f"]]><script>{MARK}</script>",
    f"<svg onload={MARK}></svg>",
    f"<svg><script>{MARK}</script></svg>",
    f"<math><mtext></mtext><script>{MARK}</script></math>",
    f"<iframe srcdoc='<script>parent.{MARK}</script>'></iframe>",
    f"<iframe src=javascript:{MARK}></iframe>",
    f"<a href=javascript:{MARK}>click</a>",
    f"<body onload={MARK}>",
    f"<details open ontoggle={MARK}>x</details>",
    f"<input autofocus onfocus={MARK}>",
    f"<video><source onerror={MARK}></video>",
    f"<object data=javascript:{MARK}></object>",
    "<meta http-equiv=refresh content='0;url=http://example.org/'>",
    "<base href=http://example.org/>",
    "<link rel=stylesheet href=http://example.org/x.css>",
    "<style>@import 'http://example.org/x.css';body{background:url(http://example.org/x)}</style>",
    "<form action=http://example.org/><button autofocus>go</button></form>",
    "<img src=http://example.org/leak.png>",
    f"<template><script>{MARK}</script></template>",
    f"<noscript><p title='</noscript><img src=x onerror={MARK}>'></noscript>",
    f"<xmp><img src=x onerror={MARK}></xmp>",
    f"&lt;script&gt;{MARK}&lt;/script&gt; &#60;script&#62;{MARK}",
]

STRINGS = [
    f'"); {MARK}; ("',
    f"'); {MARK}; ('",
    f"`); {MARK}; (`${{{MARK}}}",
    f"${{{MARK}}} #{{{MARK}}} {{{{constructor.constructor('{MARK}')()}}}}",
    f"\\u003cscript\\u003e{MARK}\\u003c/script\\u003e",
    f"line\u2028{MARK}\u2029end",
    f'\\");{MARK};//',
    f"*/ {MARK} /*",
    f"\r\n{MARK}\r\n",
    "__proto__ constructor toString hasOwnProperty",
    f"javascript:{MARK}",
    f"data:text/html,<script>{MARK}</script>",
    "\u202emirrored \u202dtext \u2066isolate\u2069 and \ufeffmarks",
    "null\x01\x1b[31m control",
]

MATHS = [
    f"$\\href{{javascript:{MARK}}}{{x}}$",
    f"$\\url{{javascript:{MARK}}}$",
    "$\\includegraphics[width=9em]{http://example.org/leak.png}$",
    "$\\htmlData{x=1}{y} \\htmlStyle{background:url(http://example.org/)}{z} \\htmlId{title}{w}$",
    f"$\\text{{<img src=x onerror={MARK}>}}$",
    f"\\boxed{{<script>{MARK}</script>}}",
    "$\\def\\a{\\a\\a}\\a$",
    "$\\def\\a{b\\def\\a{\\a}}\\gdef\\frac{\\relax}\\a$",
    "$\\rule{999999em}{999999em}$",
    "$\\kern{99999999em}x\\hspace{-99999999em}$",
    "$" + "{" * 1500 + "x" + "}" * 1500 + "$",
    "$" + "\\frac{1}{" * 150 + "x" + "}" * 150 + "$",
    "$" + "x^{" * 160 + "y" + "}" * 160 + "$",
    "\\[" * 20000 + " never closed",
    "$$ " * 10001,
    "$x " * 20000,
    "\\begin{matrix}" * 3000,
    "\\boxed{" * 3000,
    f"\\begin{{<script>}}{MARK}\\end{{<script>}}",
    f'$\\unicode{{x}}\\char"3c\\verb|<script>{MARK}</script>|$',
]

HOSTILE = MARKUP + STRINGS + MATHS
