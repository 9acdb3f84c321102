//! What each of the system's codes means, and how the text reads.

use super::*;

fn of(errno: Errno, phase: Phase) -> Error {
    Error::from_io(errno.into(), phase, "connect to 192.0.2.1:53")
}

#[test]
fn shortages_of_this_machine_are_local() {
    for (errno, kind) in [
        (Errno::MFILE, ErrorKind::FilesExhausted),
        (Errno::NFILE, ErrorKind::FilesExhausted),
        (Errno::ADDRNOTAVAIL, ErrorKind::PortsExhausted),
        (Errno::ADDRINUSE, ErrorKind::PortsExhausted),
        (Errno::AGAIN, ErrorKind::PortsExhausted),
        (Errno::NOBUFS, ErrorKind::Buffers),
        (Errno::NOMEM, ErrorKind::Buffers),
        (Errno::NETDOWN, ErrorKind::NetworkDown),
        (Errno::NETUNREACH, ErrorKind::NetworkDown),
        (Errno::AFNOSUPPORT, ErrorKind::NetworkDown),
        (Errno::ACCESS, ErrorKind::Denied),
        (Errno::PERM, ErrorKind::Denied),
    ] {
        let error = of(errno, Phase::Connect);
        assert_eq!((error.kind(), error.side()), (kind, Side::Local), "{errno:?}");
        assert!(!error.is_timeout() && !error.is_retryable());
    }
}

#[test]
fn what_the_peer_does_is_the_upstreams() {
    for (errno, phase, kind) in [
        (Errno::CONNREFUSED, Phase::Connect, ErrorKind::Refused),
        (Errno::HOSTUNREACH, Phase::Connect, ErrorKind::Unreachable),
        (Errno::HOSTDOWN, Phase::Read, ErrorKind::Unreachable),
        (Errno::TIMEDOUT, Phase::Connect, ErrorKind::TimedOut(Phase::Connect)),
        (Errno::CONNRESET, Phase::Read, ErrorKind::Reset),
        (Errno::PIPE, Phase::Write, ErrorKind::Reset),
        (Errno::CONNABORTED, Phase::Read, ErrorKind::Reset),
    ] {
        let error = of(errno, phase);
        assert_eq!((error.kind(), error.side(), error.phase()), (kind, Side::Upstream, phase), "{errno:?}");
    }
    assert!(of(Errno::TIMEDOUT, Phase::Connect).is_timeout());
}

#[test]
fn the_text_says_what_was_tried() {
    let error = Error::timed_out(Phase::Tls, "connect to 9.9.9.9:853", Duration::from_secs(3));
    assert_eq!(error.to_string(), "connect to 9.9.9.9:853: tls handshake timed out after 3s");
    assert_eq!(error.kind().as_str(), "timeout_tls");
    let half = Error::timed_out(Phase::Connect, "connect to 9.9.9.9:853", Duration::from_millis(2_520));
    assert!(half.to_string().ends_with("timed out after 2.5s"), "{half}");
    let short = of(Errno::MFILE, Phase::Connect);
    assert_eq!(short.to_string(), "connect to 192.0.2.1:53: too many open files (local shortage)");
    assert!(StdError::source(&short).is_some());
}

#[test]
fn a_tls_failure_after_the_handshake_is_the_upstreams() {
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::InternalError);
    let error =
        Error::from_io(io::Error::new(io::ErrorKind::InvalidData, alert), Phase::Read, "query to 192.0.2.1:853");
    assert_eq!((error.kind(), error.side()), (ErrorKind::Tls, Side::Upstream));
    assert_eq!(error.to_string(), "query to 192.0.2.1:853: received fatal alert: internalerror");
}

#[test]
fn a_port_in_use_is_named_so_outside_of_connecting() {
    assert_eq!(ErrorKind::from_io(&Errno::ADDRINUSE.into(), Phase::Listen), ErrorKind::AddressInUse);
    assert_eq!(ErrorKind::from_io(&Errno::AGAIN.into(), Phase::Read), ErrorKind::Other);
}
