"""Rewrites of paths as a table. `test_rewrites.py` checks it here, and `tests/envoy/test_rewrites.py` in a real Envoy."""

from __future__ import annotations

# By (prefix, replacement): the path of a request, and the path that the model server gets.
TABLE: dict[tuple[str, str], dict[str, str]] = {
    # The examples of the Gateway API.
    ("/foo", "/xyz"): {
        "/foo": "/xyz",
        "/foo/": "/xyz/",
        "/foo/bar": "/xyz/bar",
        "/foobar": "/foobar",
        "/foo//bar": "/xyz//bar",
        "/foo/foo/bar": "/xyz/foo/bar",
        "/bar/foo": "/bar/foo",
        "/": "/",
    },
    ("/foo", "/xyz/"): {"/foo": "/xyz", "/foo/": "/xyz/", "/foo/bar": "/xyz/bar", "/foobar": "/foobar"},
    ("/foo/", "/xyz"): {"/foo": "/xyz", "/foo/": "/xyz/", "/foo/bar": "/xyz/bar", "/foobar": "/foobar"},
    ("/foo/", "/xyz/"): {"/foo": "/xyz", "/foo/": "/xyz/", "/foo/bar": "/xyz/bar", "/foo:go": "/foo:go"},
    # The prefix is removed.
    ("/foo", ""): {
        "/foo": "/",
        "/foo/": "/",
        "/foo/bar": "/bar",
        "/foobar": "/foobar",
        "/foo?x=/foo": "/?x=/foo",
        "/foo/?x": "/?x",
        "/foo/foo": "/foo",
    },
    ("/foo", "/"): {"/foo": "/", "/foo/": "/", "/foo/bar": "/bar", "/foo/bar?x=1": "/bar?x=1", "/foobar": "/foobar"},
    ("/foo/", "/"): {"/foo": "/", "/foo/": "/", "/foo/bar": "/bar", "/foobar": "/foobar", "/foo:go": "/foo:go"},
    ("/foo/", ""): {"/foo": "/", "/foo/bar": "/bar"},
    ("/foo/bar", ""): {"/foo/bar/baz": "/baz", "/foo/bar": "/", "/foo": "/foo", "/foo/barbaz": "/foo/barbaz"},
    # The prefix is the whole path: something is put before it.
    ("/", "/xyz"): {"/": "/xyz/", "/foo": "/xyz/foo", "/foo/?x": "/xyz/foo/?x"},
    ("/", "/xyz/"): {"/": "/xyz/", "/foo": "/xyz/foo"},
    ("/", ""): {"/": "/", "/foo": "/foo"},
    # Verbs.
    ("/v1/models/p", "/v1/models/q"): {
        "/v1/models/p:predict": "/v1/models/q:predict",
        "/v1/models/p:predict?x=:y": "/v1/models/q:predict?x=:y",
        "/v1/models/p/versions/3:predict": "/v1/models/q/versions/3:predict",
        "/v1/models/p2:predict": "/v1/models/p2:predict",
    },
    ("/v1/models/p", "/q/"): {"/v1/models/p:predict": "/q:predict", "/v1/models/p/metadata": "/q/metadata"},
    ("/v1/models/p", "/"): {"/v1/models/p:predict": "/:predict"},
    ("/v1/models/p:", "/q/"): {"/v1/models/p:predict": "/q/predict", "/v1/models/p": "/v1/models/p"},
    ("/v1/models/p:", ""): {"/v1/models/p:predict": "/predict"},
    ("/v1/models/p:predict", "/invocations"): {
        "/v1/models/p:predict": "/invocations",
        "/v1/models/p%3Apredict": "/invocations",
        "/v1/models/p:predictions": "/v1/models/p:predictions",
    },
    # Names of models with a colon, which some clients encode.
    ("/v2/models/llama3.1:8b", "/v2/models/llama"): {
        "/v2/models/llama3.1:8b/infer": "/v2/models/llama/infer",
        "/v2/models/llama3.1%3A8b/infer": "/v2/models/llama/infer",
        "/v2/models/llama3.1%3a8b/infer": "/v2/models/llama/infer",
        "/v2/models/llama3.1:8b2/infer": "/v2/models/llama3.1:8b2/infer",
        "/v2/models/llama3x1:8b/infer": "/v2/models/llama3x1:8b/infer",
    },
    # Encodings. Envoy decodes what needs no encoding before it looks at the path; `%2F` is not a slash.
    ("/foo", "/x%2Fy"): {"/%66oo/bar": "/x%2Fy/bar", "/foo%2Fbar": "/foo%2Fbar", "/foo/%2F": "/x%2Fy/%2F"},
    ("/a%2Fb", "/c"): {"/a%2Fb/d": "/c/d", "/a%2fb/d": "/c/d", "/a/b/d": "/a/b/d"},
    ("/a~b", "/c"): {"/a%7Eb/d": "/c/d", "/a~b": "/c"},
    ("/a.b", "/c"): {"/a.b/d": "/c/d", "/aXb/d": "/aXb/d"},
    ("/a+(b)*$", "/c"): {"/a+(b)*$/d": "/c/d", "/a%2B(b)*$/d": "/c/d", "/aa": "/aa"},
    ("/foo", "/\\1$1"): {"/foo/bar": "/\\1$1/bar"},
}
