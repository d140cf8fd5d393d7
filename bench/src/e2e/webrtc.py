"""One end of a WebRTC stream by GStreamer's webrtcbin, for comparison.

webrtc.py send PORT WIDTH HEIGHT FPS THREADS KBITS: raw BGRX pictures from standard input.
webrtc.py receive PORT: raw I420 pictures to standard output.

Both ends exchange their session descriptions and candidates over TCP on the loopback interface, one JSON object per
line; the receiver listens. Media goes over ICE, DTLS and SRTP as in a browser, with a jitter buffer of 0 ms.
"""

import json
import socket
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

# With picture loss indications (RFC 4585): the receiver's decoder is there only after the first keyframe has gone by.
RTP = "application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000,rtcp-fb-nack-pli=(boolean)true"


class End:
    """A pipeline with one webrtcbin in it, and the connection to the other end."""

    def __init__(self, pipeline, connection):
        self.pipeline = pipeline
        self.webrtc = pipeline.get_by_name("webrtc")
        self.connection = connection
        self.webrtc.connect("on-ice-candidate", self.on_candidate)

    def say(self, **message):
        self.connection.sendall(json.dumps(message).encode() + b"\n")

    def listen(self):
        for line in self.connection.makefile():
            GLib.idle_add(self.on_message, json.loads(line))

    def on_candidate(self, _element, line, candidate):
        self.say(line=line, candidate=candidate)

    def on_message(self, message):
        if "candidate" in message:
            self.webrtc.emit("add-ice-candidate", message["line"], message["candidate"])
        else:
            self.on_description(message["sdp"])
        return False

    def set_local(self, kind, promise):
        # The description lives in the reply.
        reply = promise.get_reply()
        description = reply.get_value(kind)
        self.webrtc.emit("set-local-description", description, Gst.Promise.new())
        self.say(sdp=description.sdp.as_text())

    def set_remote(self, kind, text, then=None):
        _, sdp = GstSdp.SDPMessage.new_from_text(text)
        description = GstWebRTC.WebRTCSessionDescription.new(kind, sdp)
        promise = Gst.Promise.new_with_change_func(lambda _: then() if then else None)
        self.webrtc.emit("set-remote-description", description, promise)


class Sender(End):
    def __init__(self, connection, width, height, fps, threads, kbits):
        pipeline = Gst.parse_launch(
            f"fdsrc fd=0 blocksize={width * height * 4} ! rawvideoparse format=bgrx width={width} height={height} "
            f"framerate={fps}/1 ! videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency "
            f"speed-preset=ultrafast threads={threads} bitrate={kbits} key-int-max=100000 "
            f"! rtph264pay mtu=1200 config-interval=-1 aggregate-mode=zero-latency ! {RTP} "
            "! webrtcbin name=webrtc bundle-policy=max-bundle latency=0"
        )
        super().__init__(pipeline, connection)
        self.webrtc.connect("on-negotiation-needed", self.on_negotiation_needed)

    def on_negotiation_needed(self, _element):
        promise = Gst.Promise.new_with_change_func(lambda promise: self.set_local("offer", promise))
        self.webrtc.emit("create-offer", None, promise)

    def on_description(self, text):
        self.set_remote(GstWebRTC.WebRTCSDPType.ANSWER, text)


class Receiver(End):
    def __init__(self, connection):
        # A bin around it: a description of one element gives that element alone.
        pipeline = Gst.Pipeline.new(None)
        element = Gst.ElementFactory.make("webrtcbin", "webrtc")
        element.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
        element.set_property("latency", 0)
        pipeline.add(element)
        super().__init__(pipeline, connection)
        self.webrtc.connect("pad-added", self.on_pad)

    def on_description(self, text):
        def answer():
            promise = Gst.Promise.new_with_change_func(lambda promise: self.set_local("answer", promise))
            self.webrtc.emit("create-answer", None, promise)

        self.set_remote(GstWebRTC.WebRTCSDPType.OFFER, text, answer)

    def on_pad(self, _element, pad):
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        decode = Gst.parse_bin_from_description(
            "rtph264depay ! avdec_h264 max-threads=1 ! video/x-raw,format=I420 ! fdsink fd=1 sync=false", True
        )
        self.pipeline.add(decode)
        decode.sync_state_with_parent()
        pad.link(decode.get_static_pad("sink"))


def main():
    Gst.init(None)
    role, port = sys.argv[1], int(sys.argv[2])
    if role == "receive":
        connection, _ = socket.create_server(("127.0.0.1", port)).accept()
        end = Receiver(connection)
    else:
        connection = socket.create_connection(("127.0.0.1", port))
        end = Sender(connection, *map(int, sys.argv[3:8]))
    loop = GLib.MainLoop()
    bus = end.pipeline.get_bus()
    bus.add_signal_watch()

    def on_error(_bus, message):
        print(message.parse_error(), file=sys.stderr)
        loop.quit()

    bus.connect("message::error", on_error)
    bus.connect("message::eos", lambda *_: loop.quit())
    # The receiver's pipeline runs before the offer comes, so that its candidates are gathered.
    end.pipeline.set_state(Gst.State.PLAYING)
    threading.Thread(target=end.listen, daemon=True).start()
    loop.run()
    end.pipeline.set_state(Gst.State.NULL)


main()
