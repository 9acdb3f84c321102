//! What every page has around it: head, top, outcome of the last form, foot.

use axum::http::HeaderMap;
use maud::{DOCTYPE, Markup, html};

use super::{
    assets::{Asset, build},
    outcome::Outcome,
    words::{self, Form},
};
use crate::{routes::Shared, rows::StatusRow};

/// What a page of the daemon is made with.
pub(super) struct Frame<'a> {
    pub(super) shared: &'a Shared,
    pub(super) status: &'a StatusRow,
    pub(super) outcome: Option<Outcome>,
    /// Whether who looks can log out.
    has_session: bool,
}

impl<'a> Frame<'a> {
    pub(super) fn new(shared: &'a Shared, status: &'a StatusRow, headers: &HeaderMap) -> Frame<'a> {
        let has_session = shared.access.has_token() && crate::access::session(headers).is_some();
        Frame { shared, status, outcome: Outcome::read(headers), has_session }
    }

    /// The secret of our forms, as each of them carries it.
    pub(super) fn secret(&self) -> Markup {
        html! { input type="hidden" name="form" value=(self.shared.access.form_secret()); }
    }

    /// A form that does one thing.
    pub(super) fn button(&self, action: &str, text: &str) -> Markup {
        html! { form method="post" action=(action) { (self.secret()) button { (text) } } }
    }

    /// The page. `pool` is the name of the pool that it is about.
    pub(super) fn page(&self, title: &str, pool: Option<&str>, main: &Markup) -> Markup {
        let scripts = html! {
            script src=(Asset::Theme.href()) {}
            script src=(Asset::Chart.href()) defer {}
            script src=(Asset::Script.href()) defer {}
            link rel="stylesheet" href=(Asset::ChartStyle.href());
        };
        html! {
            (DOCTYPE)
            html lang="en" data-build=(build()) {
                (head(title, &scripts))
                body data-page=[pool] data-up=(self.status.uptime.as_secs()) {
                    a.skip href="#main" { "Skip to the content" }
                    (self.top(pool))
                    @if let Some(outcome) = &self.outcome {
                        p.outcome.failed[!outcome.done] role="status" {
                            span.state data-word=(if outcome.done { "done" } else { "refused" }) {
                                (if outcome.done { "done" } else { "refused" })
                            }
                            " " (outcome.text)
                        }
                    }
                    main id="main" { (main) }
                    (self.foot())
                }
            }
        }
    }

    fn top(&self, pool: Option<&str>) -> Markup {
        html! {
            header.top {
                a.brand href="/" { (mark()) "keepwarm" }
                span.quiet.version { (self.status.version) }
                nav aria-label="Sections" {
                    @if pool.is_some() {
                        a href="/" { "Overview" }
                    } @else {
                        a href="#pools" { "Pools" }
                        a href="#upstreams" { "Upstreams" }
                        a href="#jobs" { "Jobs" }
                        a href="#requests" { "Requests" }
                        a href="#config" { "Config" }
                    }
                }
                div.tools {
                    p.live #live role="status" data-live="off" {
                        noscript { "as of " (words::clock(self.status.now)) " · " a href="" { "Reload" } }
                        span.live-text { "" }
                    }
                    label.scripted.filter {
                        span.hidden { "Show only rows with this text" }
                        input #filter type="search" placeholder="Filter  ( / )" autocomplete="off" spellcheck="false";
                    }
                    button.scripted #theme type="button" aria-label="Colours: as the system has them" { "Auto" }
                    @if self.has_session {
                        (self.button("/logout", "Log out"))
                    }
                }
            }
            noscript {
                p.hint { "JavaScript is off: the page shows the moment in which it was made. Every action works." }
            }
        }
    }

    fn foot(&self) -> Markup {
        html! {
            footer.quiet {
                "keepwarm " (self.status.version) " · "
                a href="/api/v1/openapi.json" { "API" } " · "
                a href="/readyz?verbose" { "Readiness" } " · charts by "
                a href=(Asset::ChartLicence.href()) { "uPlot" }
            }
        }
    }
}

/// The head of a page.
fn head(title: &str, more: &Markup) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) }
            link rel="icon" href=(Asset::Icon.href()) type="image/svg+xml";
            link rel="stylesheet" href=(Asset::Style.href());
            (more)
        }
    }
}

/// A page for who is not known yet: nothing of the daemon is in it.
pub(super) fn bare(title: &str, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, &html! {}))
            body.bare { main id="main" { p.brand { (mark()) "keepwarm" } (main) } }
        }
    }
}

/// Why a form was not taken.
pub(super) fn refusal(why: &str) -> Markup {
    bare(
        "keepwarm: refused",
        &html! {
            h1 { "Refused" }
            p { (why) }
            p { a href="/" { "Back to the dashboard" } }
        },
    )
}

/// A figure with its name, in a list of them. The script fills it from where `path` leads.
pub(super) fn figure(name: &str, value: &serde_json::Value, path: &str, form: Form) -> Markup {
    html! {
        div { dt { (name) } dd data-get=(path) data-as=(form.as_str()) { (words::show(words::at(value, path), form)) } }
    }
}

/// A figure that does not change by itself.
pub(super) fn fact(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// A word with its mark: colour, shape and text say the same.
pub(super) fn state(path: &str, word: &str) -> Markup {
    html! { span.state data-get=(path) data-as="state" data-word=(word) { (word.replace('_', " ")) } }
}

fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 16 16" aria-hidden="true" {
            path d="M1 8h3l2-5 3 10 2-5h4" {}
        }
    }
}
