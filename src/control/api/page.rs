//! The dashboard: a page, its style and its script, which lie in the program and are the same for everybody. They tell
//! nothing of the node and need no token; what they show, they ask of the API like any other client.

use std::hash::Hasher as _;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, VARY,
};
use hyper::{Method, StatusCode};
use siphasher::sip::SipHasher13;

use super::reply::{Content, Reply, with};

/// Stands in the page where the fingerprint of all files goes.
const FINGERPRINT: &str = "FINGERPRINT";

const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const ICON: &str = include_str!("page/icon.svg");
const SCRIPT: &str = concat!(
    include_str!("page/dom.js"),
    include_str!("page/format.js"),
    include_str!("page/node.js"),
    include_str!("page/charts.js"),
    include_str!("page/figures.js"),
    include_str!("page/rulings.js"),
    include_str!("page/queries.js"),
    include_str!("page/main.js"),
);

/// What a browser may do with the page: nothing but load its own files and ask its own node; no text becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(&str, &str); 5] = [
    ("content-security-policy", POLICY),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
];

/// Under the address with the fingerprint there will never be anything else.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// Kept, but asked for again: another version of the node may have another page.
const ASK_AGAIN: &str = "no-cache";

/// The files of the dashboard.
#[derive(Debug)]
pub(super) struct Page {
    fingerprint: String,
    files: [File; 4],
}

#[derive(Debug)]
struct File {
    /// Where it is found. What stands in the page is relative, so that a reverse proxy may put it below any path.
    paths: &'static [&'static str],
    media: &'static str,
    bytes: Bytes,
    /// The same by gzip, a third as long.
    gzipped: Bytes,
    tag: HeaderValue,
}

impl Page {
    pub(super) fn new() -> Self {
        let all = [HTML, CSS, ICON, SCRIPT].concat();
        let fingerprint = fingerprint_of(all.as_bytes());
        let tag = HeaderValue::from_str(&format!("\"{fingerprint}\"")).expect("digits are visible");
        let file = |paths, media, bytes: Bytes| {
            let gzipped = gzip(&bytes);
            File { paths, media, bytes, gzipped, tag: tag.clone() }
        };
        let html = HTML.replace(FINGERPRINT, &fingerprint);
        let files = [
            file(&["/", "/ui"], "text/html; charset=utf-8", html.into()),
            file(&["/page.css"], "text/css; charset=utf-8", Bytes::from_static(CSS.as_bytes())),
            file(
                &["/page.js"],
                "text/javascript; charset=utf-8",
                Bytes::from_static(SCRIPT.as_bytes()),
            ),
            file(&["/icon.svg"], "image/svg+xml", Bytes::from_static(ICON.as_bytes())),
        ];
        Self { fingerprint, files }
    }

    /// Whether a file lies at `path` for whoever asks by `method`.
    pub(super) fn has(&self, method: &Method, path: &str) -> bool {
        method == Method::GET && self.file(path).is_some()
    }

    fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.paths.contains(&path))
    }

    /// The file at `path`, or that it has not changed.
    pub(super) fn reply(
        &self,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Option<Reply> {
        let file = self.file(path)?;
        let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| lists(known, &file.tag));
        let is_gzipped = !is_known && takes_gzip(headers);
        let bytes = match (is_known, is_gzipped) {
            (true, _) => Bytes::new(),
            (false, true) => file.gzipped.clone(),
            (false, false) => file.bytes.clone(),
        };
        let mut reply = with(file.media, Content::Whole(bytes));
        if is_known {
            *reply.status_mut() = StatusCode::NOT_MODIFIED;
        }
        if is_gzipped {
            reply.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let keep = if query == Some(self.fingerprint.as_str()) { FOR_EVER } else { ASK_AGAIN };
        let fields = reply.headers_mut();
        fields.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
        fields.insert(ETAG, file.tag.clone());
        fields.insert(VARY, HeaderValue::from_static("accept-encoding"));
        for (name, value) in HEADERS {
            fields.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Some(reply)
    }
}

/// Whether whoever sends `headers` takes gzip. Browsers say so in plain words; for others there is the file as it is.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|coding| coding.trim() == "gzip")
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("a vector takes all that is written");
    encoder.finish().expect("a vector takes all that is written").into()
}

/// Whether `known` (of If-None-Match) has `tag` among its tags, compared weakly (RFC 9110 §13.1.2).
fn lists(known: &HeaderValue, tag: &HeaderValue) -> bool {
    let Ok(known) = known.to_str() else { return false };
    let mut tags = known.split(',').map(str::trim);
    tags.any(|known| {
        known == "*" || known.strip_prefix("W/").unwrap_or(known).as_bytes() == tag.as_bytes()
    })
}

/// Another one for every build whose files are others.
fn fingerprint_of(bytes: &[u8]) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use hyper::body::Body as _;

    use super::*;

    fn of(reply: &Reply, name: &str) -> String {
        reply
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    }

    #[test]
    fn page_names_its_files_and_nothing_of_others() {
        let page = Page::new();
        for path in ["/", "/ui", "/page.css", "/page.js", "/icon.svg"] {
            assert!(page.has(&Method::GET, path) && !page.has(&Method::POST, path), "{path}");
        }
        assert!(!page.has(&Method::GET, "/page.html") && !page.has(&Method::GET, "/ui/"));
        let html = std::str::from_utf8(&page.files[0].bytes).unwrap();
        assert!(!html.contains(FINGERPRINT));
        for name in ["page.css", "page.js", "icon.svg"] {
            assert!(html.contains(&format!("\"{name}?{}\"", page.fingerprint)), "{name}");
        }
        for (name, text) in [("page", HTML), ("style", CSS), ("script", SCRIPT)] {
            let addresses = text.replace("http://www.w3.org/2000/svg", "");
            for foreign in ["http:", "https:", "url(", "src=\"//", "@import"] {
                assert!(!addresses.contains(foreign), "{name}: {foreign}");
            }
        }
    }

    #[test]
    fn nothing_that_is_told_can_become_markup() {
        for word in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("]
        {
            assert!(!SCRIPT.contains(word), "{word}");
        }
        for word in ["<style", "style=", "onclick", "javascript:"] {
            assert!(!HTML.contains(word), "the policy forbids {word}");
        }
        assert!(!HTML.contains("<script>") && HTML.contains("<script "), "scripts come as a file");
    }

    #[test]
    fn page_is_small() {
        let page = Page::new();
        let sent: usize = page.files.iter().map(|file| file.gzipped.len()).sum();
        let whole: usize = page.files.iter().map(|file| file.bytes.len()).sum();
        assert!(sent < 24 << 10 && whole < 72 << 10, "{sent} of {whole} bytes");
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        use std::io::Read as _;

        let page = Page::new();
        for (accept, is_gzipped) in [
            ("gzip, deflate, br", true),
            ("br,gzip", true),
            ("identity", false),
            ("gzip;q=0", false),
        ] {
            let headers = [(ACCEPT_ENCODING, accept.parse().unwrap())].into_iter().collect();
            let reply = page.reply("/page.js", None, &headers).unwrap();
            assert_eq!(of(&reply, "content-encoding") == "gzip", is_gzipped, "{accept}");
            assert_eq!(of(&reply, "vary"), "accept-encoding");
        }
        for file in &page.files {
            let mut bytes = Vec::new();
            flate2::read::GzDecoder::new(&file.gzipped[..]).read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, file.bytes, "{:?}", file.paths);
        }
    }

    #[test]
    fn what_a_browser_has_is_not_sent_again() {
        let page = Page::new();
        let none = HeaderMap::new();
        let reply = page.reply("/", None, &none).unwrap();
        assert_eq!(
            (reply.status(), of(&reply, "cache-control")),
            (StatusCode::OK, ASK_AGAIN.into())
        );
        assert!(of(&reply, "content-security-policy").contains("frame-ancestors 'none'"));
        assert_eq!(of(&reply, "x-content-type-options"), "nosniff");
        let tag = of(&reply, "etag");
        for (known, is_known) in [
            (tag.clone(), true),
            (format!("\"other\", W/{tag}"), true),
            ("*".to_owned(), true),
            ("\"other\"".to_owned(), false),
        ] {
            let headers = [(IF_NONE_MATCH, known.parse().unwrap())].into_iter().collect();
            let reply = page.reply("/page.js", None, &headers).unwrap();
            assert_eq!(reply.status() == StatusCode::NOT_MODIFIED, is_known, "{known}");
            assert_eq!(reply.body().is_end_stream(), is_known, "{known}");
        }
        let kept = page.reply("/page.js", Some(&page.fingerprint), &none).unwrap();
        assert_eq!(of(&kept, "cache-control"), FOR_EVER);
        let other = page.reply("/page.js", Some("0123456789abcdef"), &none).unwrap();
        assert_eq!(of(&other, "cache-control"), ASK_AGAIN);
    }
}
