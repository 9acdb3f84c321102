//! The files of the pages, inside the program: a copy of it shows the same everywhere, and nothing is fetched from elsewhere.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::LazyLock,
};

use axum::{
    extract::Path,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use crate::routes::refuse;

/// A file, by its path under `/assets/`.
#[derive(Clone, Copy)]
pub(super) enum Asset {
    Style,
    Icon,
    Theme,
    Script,
    Chart,
    ChartStyle,
    ChartLicence,
}

impl Asset {
    const ALL: [Asset; 7] =
        [Asset::Style, Asset::Icon, Asset::Theme, Asset::Script, Asset::Chart, Asset::ChartStyle, Asset::ChartLicence];

    /// Its name, its type and what is in it.
    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Asset::Style => ("style.css", CSS, include_str!("assets/style.css")),
            Asset::Icon => ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
            Asset::Theme => ("theme.js", JAVASCRIPT, include_str!("assets/theme.js")),
            Asset::Script => ("dashboard.js", JAVASCRIPT, include_str!("assets/dashboard.js")),
            Asset::Chart => ("uplot/uPlot.iife.min.js", JAVASCRIPT, include_str!("assets/uplot/uPlot.iife.min.js")),
            Asset::ChartStyle => ("uplot/uPlot.min.css", CSS, include_str!("assets/uplot/uPlot.min.css")),
            Asset::ChartLicence => ("uplot/LICENSE", "text/plain; charset=utf-8", include_str!("assets/uplot/LICENSE")),
        }
    }

    /// Its address, with what changes when it does: what was fetched under it may be kept for ever.
    pub(super) fn href(self) -> String {
        format!("/assets/{}?v={}", self.parts().0, HASHES[self as usize])
    }
}

/// What changes when any of the files does: a page of another build is not to be filled by this one's script.
pub(super) fn build() -> &'static str {
    static BUILD: LazyLock<String> = LazyLock::new(|| hash(&HASHES.concat()));
    &BUILD
}

/// `GET /assets/FILE`
pub(super) async fn serve(Path(file): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    let Some(asset) = Asset::ALL.into_iter().find(|asset| asset.parts().0 == file) else {
        return refuse(StatusCode::NOT_FOUND, "no such file");
    };
    let ((_, kind, content), hash) = (asset.parts(), &HASHES[asset as usize]);
    let tag = format!("\"{hash}\"");
    let is_named = uri.query().and_then(|query| query.strip_prefix("v=")) == Some(hash);
    let kept = if is_named { "public, max-age=31536000, immutable" } else { "no-cache" };
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let is_known = known.is_some_and(|tags| tags.split(',').any(|known| known.trim().trim_start_matches("W/") == tag));
    let about = [(header::ETAG, tag), (header::CACHE_CONTROL, kept.to_owned())];
    match is_known {
        true => (StatusCode::NOT_MODIFIED, about).into_response(),
        false => (about, [(header::CONTENT_TYPE, kind)], content).into_response(),
    }
}

/// Of each file, in the order of [`Asset::ALL`]. They tell builds apart; nothing is kept safe by them.
static HASHES: LazyLock<Vec<String>> = LazyLock::new(|| Asset::ALL.iter().map(|asset| hash(asset.parts().2)).collect());

fn hash(content: &str) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest;

    use super::*;

    #[test]
    fn the_chart_library_is_the_published_one() {
        let sums = include_str!("assets/uplot/SHA256SUMS");
        for asset in [Asset::Chart, Asset::ChartStyle, Asset::ChartLicence] {
            let (name, _, content) = asset.parts();
            let sum = digest::digest(&digest::SHA256, content.as_bytes());
            let sum: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            let file = name.trim_start_matches("uplot/");
            assert!(sums.lines().any(|line| line == format!("{sum}  {file}")), "{file} has the sum {sum}");
        }
    }

    #[test]
    fn each_file_is_found_under_its_own_place() {
        for (at, asset) in Asset::ALL.into_iter().enumerate() {
            assert_eq!(asset as usize, at);
            assert!(asset.href().ends_with(&hash(asset.parts().2)));
        }
    }

    #[test]
    fn our_own_files_fetch_nothing_from_elsewhere_and_need_no_exception_of_the_policy() {
        for asset in [Asset::Style, Asset::Theme, Asset::Script] {
            let (name, _, content) = asset.parts();
            for wrong in
                ["http://", "https://", "innerHTML", "insertAdjacentHTML", "document.write", "eval(", "@import"]
            {
                let without = content.replace("http://www.w3.org/2000/svg", "");
                assert!(!without.contains(wrong), "{name} has {wrong}");
            }
        }
    }
}
