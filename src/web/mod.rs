//! The web files: the playground, the frame of the API's reference, and a dashboard for Grafana.
//!
//! Owns the files, which are part of the binary: HTML, style sheets and scripts as they are, with no
//! build step. They hold nothing but what is in the repository, load nothing from elsewhere and keep
//! nothing. Knows no HTTP: `api` serves them and says what browsers may do with them.
//!
//! ```text
//! playground.html ─ playground.js   event handlers
//!                    │ server ─ events         asks, reads the stream
//!                    │ conversation, settings  turns and fields → a request
//!                    │ turns ─ markdown        answers as elements, never as markup
//!                    │ composer ─ images     the next question, files
//!                    │ film                    a synthetic X-ray to try the demo with
//!                    │ viewer, boxes           the images, and boxes drawn on them
//!                    └ snippets, theme
//! ```

/// A file that browsers ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    /// Its media type.
    pub media_type: &'static str,
    /// Its whole text.
    pub text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! assets {
    ($($path:literal $media_type:ident $file:literal)*) => {
        &[$(Asset { path: $path, media_type: $media_type, text: include_str!($file) }),*]
    };
}

/// All files that are served as they are.
pub const ASSETS: &[Asset] = assets! {
    "/" HTML "playground.html"
    "/assets/icon.svg" SVG "icon.svg"
    "/assets/theme.css" CSS "theme.css"
    "/assets/playground.css" CSS "playground.css"
    "/assets/reference.css" CSS "reference.css"
    "/assets/boxes.js" SCRIPT "boxes.js"
    "/assets/composer.js" SCRIPT "composer.js"
    "/assets/conversation.js" SCRIPT "conversation.js"
    "/assets/elements.js" SCRIPT "elements.js"
    "/assets/events.js" SCRIPT "events.js"
    "/assets/film.js" SCRIPT "film.js"
    "/assets/markdown.js" SCRIPT "markdown.js"
    "/assets/images.js" SCRIPT "images.js"
    "/assets/playground.js" SCRIPT "playground.js"
    "/assets/reference.js" SCRIPT "reference.js"
    "/assets/server.js" SCRIPT "server.js"
    "/assets/settings.js" SCRIPT "settings.js"
    "/assets/snippets.js" SCRIPT "snippets.js"
    "/assets/theme.js" SCRIPT "theme.js"
    "/assets/turns.js" SCRIPT "turns.js"
    "/assets/viewer.js" SCRIPT "viewer.js"
};

/// The frame of the reference, a Jinja template that escapes what it is given.
pub const REFERENCE: &str = include_str!("reference.html");

/// A dashboard for Grafana over the server's metrics.
pub const DASHBOARD: &str = include_str!("dashboard.json");
