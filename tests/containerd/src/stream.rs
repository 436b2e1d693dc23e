//! The streams behind `Exec`, `Attach` and `PortForward`, over WebSocket: one byte of channel number, then data.

use std::net::TcpStream;
use std::time::{Duration, Instant};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

/// Input of the process, or data of a port.
pub const STDIN: u8 = 0;
/// Output of the process.
pub const STDOUT: u8 = 1;
/// Errors of the process.
pub const STDERR: u8 = 2;
/// How it ended: a Kubernetes Status as JSON.
pub const STATUS: u8 = 3;
/// Window size as JSON.
pub const RESIZE: u8 = 4;

const LIMIT: Duration = Duration::from_secs(20);

/// An open stream, and what came so far.
#[derive(Debug)]
pub struct Stream {
    socket: WebSocket<TcpStream>,
    channels: [Vec<u8>; 5],
    open: bool,
}

impl Stream {
    /// Connects to the address that the runtime service named.
    #[must_use]
    pub fn open(url: &str) -> Stream {
        let mut request =
            url.replacen("http://", "ws://", 1).into_client_request().expect("an address to stream from");
        let protocol = HeaderValue::from_static("v4.channel.k8s.io");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let host = request.uri().authority().expect("a host").to_string();
        let tcp = TcpStream::connect(&host).expect("the streaming server");
        tcp.set_read_timeout(Some(LIMIT)).expect("a time limit");
        let (socket, _) = tungstenite::client(request, tcp).expect("a WebSocket handshake");
        Stream { socket, channels: Default::default(), open: true }
    }

    /// Sends bytes on a channel.
    pub fn send(&mut self, channel: u8, bytes: &[u8]) {
        let mut frame = vec![channel];
        frame.extend_from_slice(bytes);
        self.socket.send(Message::binary(frame)).expect("the stream takes data");
    }

    /// What came on a channel so far.
    #[must_use]
    pub fn got(&self, channel: u8) -> &[u8] {
        self.channels.get(usize::from(channel)).map_or(&[], Vec::as_slice)
    }

    /// The same as text.
    #[must_use]
    pub fn text(&self, channel: u8) -> String {
        String::from_utf8_lossy(self.got(channel)).into_owned()
    }

    /// Reads one message; false at the end.
    fn read(&mut self) -> bool {
        match self.socket.read() {
            Ok(Message::Binary(frame)) => {
                if let Some((channel, data)) = frame.split_first()
                    && let Some(kept) = self.channels.get_mut(usize::from(*channel))
                {
                    kept.extend_from_slice(data);
                }
            }
            Ok(Message::Close(_)) | Err(_) => self.open = false,
            Ok(_) => {}
        }
        self.open
    }

    /// Reads until `channel` holds `text`.
    #[track_caller]
    pub fn expect(&mut self, channel: u8, text: &str) {
        let end = Instant::now() + LIMIT;
        while !self.text(channel).contains(text) {
            let more = Instant::now() < end && self.read();
            assert!(
                more || self.text(channel).contains(text),
                "{text:?} did not come on channel {channel}: {self:?}"
            );
        }
    }

    /// Reads to the end of the stream and returns what the status channel said.
    #[track_caller]
    pub fn finish(&mut self) -> serde_json::Value {
        let end = Instant::now() + LIMIT;
        while self.open && Instant::now() < end {
            self.read();
        }
        assert!(!self.open, "the stream did not end: {self:?}");
        serde_json::from_slice(self.got(STATUS)).unwrap_or_default()
    }
}
