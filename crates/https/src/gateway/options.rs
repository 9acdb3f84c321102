//! What a request asks of the gateway itself, in headers that no origin sees.

use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, header};

use super::refusal::Refusal;
use crate::{RequestOptions, profile::Profile};

/// Takes every header that is for the gateway out of a request and reads it. `now`: from when a time-out counts.
pub(super) fn take(headers: &mut HeaderMap, now: Instant) -> Result<RequestOptions, Refusal> {
    headers.remove(header::PROXY_AUTHORIZATION);
    let own: Vec<HeaderName> = headers.keys().filter(|name| is_own(name)).cloned().collect();
    let mut options = RequestOptions::default();
    for name in &own {
        let mut values = headers.get_all(name).iter();
        let (value, more) = (values.next(), values.next());
        let value = value.filter(|_| more.is_none()).and_then(|value| value.to_str().ok()).map(str::trim);
        let value = value.ok_or_else(|| Refusal::request(format!("{name} comes once, in visible characters")))?;
        set(&mut options, name.as_str(), value, now)?;
    }
    for name in &own {
        headers.remove(name);
    }
    Ok(options)
}

/// Whether a header is between clients and the gateway.
pub(super) fn is_own(name: &HeaderName) -> bool {
    name.as_str().starts_with("keepwarm-")
}

fn set(options: &mut RequestOptions, name: &str, value: &str, now: Instant) -> Result<(), Refusal> {
    match name {
        "keepwarm-address" => options.address = Some(read(name, value, "an IP address, such as 192.0.2.1")?),
        "keepwarm-fresh" => options.fresh = read(name, value, "true or false")?,
        "keepwarm-profile" => options.profile = Some(profile(value)?),
        "keepwarm-timeout" => {
            let timeout =
                duration(value).ok_or_else(|| wrong(name, value, "a time from 1ms to 1h, such as 500ms, 5s or 2m"))?;
            options.deadline = Some(now + timeout);
        }
        // The guard has read it.
        AUTHORIZATION => {}
        _ => {
            let known =
                "keepwarm-address, keepwarm-authorization, keepwarm-fresh, keepwarm-profile and keepwarm-timeout";
            return Err(Refusal::request(format!("{name} is not known, which {known} are")));
        }
    }
    Ok(())
}

fn profile(name: &str) -> Result<Arc<Profile>, Refusal> {
    Profile::named(name).map_err(|error| Refusal::request(format!("keepwarm-profile: {error}")))
}

fn read<T: FromStr>(name: &str, value: &str, accepted: &str) -> Result<T, Refusal> {
    value.parse().map_err(|_| wrong(name, value, accepted))
}

fn wrong(name: &str, value: &str, accepted: &str) -> Refusal {
    Refusal::request(format!("{name}: {value:?} is not {accepted}"))
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return None,
    };
    unit.checked_mul(number.parse().ok()?).filter(|time| (TIMEOUT_MIN..=TIMEOUT_MAX).contains(time))
}

/// The header by which clients without a Proxy-Authorization of their own say who they are.
pub(super) const AUTHORIZATION: &str = "keepwarm-authorization";

const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(lines: &[(&'static str, &'static str)]) -> Result<(RequestOptions, HeaderMap), String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("valid"));
        }
        take(&mut headers, now()).map(|options| (options, headers)).map_err(|refusal| refusal.text)
    }

    fn now() -> Instant {
        use std::sync::LazyLock;
        static NOW: LazyLock<Instant> = LazyLock::new(|| tokio::time::Instant::now().into_std());
        *NOW
    }

    #[test]
    fn what_is_for_the_gateway_is_read_and_taken_out() {
        let lines = [
            ("keepwarm-address", "192.0.2.7"),
            ("keepwarm-fresh", "true"),
            ("keepwarm-profile", "plain"),
            ("keepwarm-timeout", "1500ms"),
            ("keepwarm-authorization", "Basic eDp5"),
            ("proxy-authorization", "Basic eDp5"),
            ("authorization", "Basic b3JpZ2lu"),
        ];
        let (options, headers) = read_all(&lines).expect("valid");
        assert_eq!(options.address, Some("192.0.2.7".parse().expect("valid")));
        assert!(options.fresh);
        assert_eq!(options.profile, Some(Profile::plain()));
        assert_eq!(options.deadline, Some(now() + Duration::from_millis(1500)));
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["authorization"]);
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        for (line, expected) in [
            (("keepwarm-adress", "192.0.2.7"), "keepwarm-address"),
            (("keepwarm-address", "tiles"), "IP address"),
            (("keepwarm-fresh", "yes"), "true or false"),
            (("keepwarm-profile", "lynx"), "known are plain"),
            (("keepwarm-timeout", "5"), "500ms"),
            (("keepwarm-timeout", "0s"), "500ms"),
            (("keepwarm-timeout", "2h"), "500ms"),
            (("keepwarm-timeout", "99999999999999999999s"), "500ms"),
            (("keepwarm-timeout", "-5s"), "500ms"),
        ] {
            let text = read_all(&[line]).expect_err("refused");
            assert!(text.contains(expected), "{text}");
        }
        let twice = [("keepwarm-fresh", "true"), ("keepwarm-fresh", "false")];
        assert!(read_all(&twice).expect_err("refused").contains("once"));
    }
}
