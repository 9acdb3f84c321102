//! How a client is told why not.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Sends `answer` and closes so that it arrives: closing over unread bytes would send a reset, which takes what was sent before from a
/// client that has not read it yet.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(crate) async fn last_word(mut stream: TcpStream, answer: &[u8]) {
    let linger = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        let mut left = LINGER_MAX;
        while left > 0 {
            match stream.read(&mut rest).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    // However it ends, the client has had its chance.
    let _ = timeout(LINGER, linger).await;
}

/// For how long a client may take to close after the last answer.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes of a client that are thrown away after the last answer.
const LINGER_MAX: usize = 256 * 1024;
