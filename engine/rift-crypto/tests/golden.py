#!/usr/bin/env python3
"""Prints the golden values of tests/golden.rs, tests/pairing.rs, src/kdf.rs and src/cookie.rs.

An independent implementation of what rift-crypto puts on the wire, from the specifications: Noise revision 34
on hashlib's BLAKE2s, SPAKE2 over Ed25519 in plain integers, and the primitives of the `cryptography` package
(python3-cryptography). It shares no code with the crate.
"""
import hashlib
import hmac
import ipaddress
import struct
from base64 import urlsafe_b64encode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CHACHA20, AES256 = 1, 2
HEADER = bytes(range(18))
BODY = b"a slice of a frame"


def hkdf(secret, label, length=32):
    return HKDF(hashes.SHA256(), length, b"", label).derive(secret)


def raw(private):
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def x25519(private, public):
    return private.exchange(X25519PublicKey.from_public_bytes(public))


def aead(suite, key):
    return AESGCM(key) if suite == AES256 else ChaCha20Poly1305(key)


def seal(suite, key, packet_id):
    return aead(suite, key).encrypt(struct.pack("<4xQ", packet_id), BODY, HEADER)


class Identity:
    def __init__(self, seed):
        signing = Ed25519PrivateKey.from_private_bytes(seed)
        self.static = X25519PrivateKey.from_private_bytes(hkdf(seed, b"rift-x25519-static-v1"))
        self.static_public = raw(self.static)
        self.id = raw(signing)
        self.signature = signing.sign(b"rift-static-v1" + self.static_public)
        self.proof = self.id + self.signature


class Symmetric:
    """Noise's SymmetricState (section 5.2)."""

    def __init__(self, name):
        self.h = self.blake2s(name) if len(name) > 32 else name.ljust(32, b"\0")
        self.ck, self.key, self.counter = self.h, None, 0
        self.mix_hash(b"rift/1")

    @staticmethod
    def blake2s(data):
        return hashlib.blake2s(data).digest()

    @staticmethod
    def hkdf2(chaining_key, material):
        mac = lambda key, data: hmac.new(key, data, hashlib.blake2s).digest()
        temp = mac(chaining_key, material)
        first = mac(temp, b"\x01")
        return first, mac(temp, first + b"\x02")

    def mix_hash(self, data):
        self.h = self.blake2s(self.h + data)

    def mix_key(self, material):
        (self.ck, self.key), self.counter = self.hkdf2(self.ck, material), 0

    def encrypt(self, plaintext):
        out = plaintext
        if self.key is not None:
            out = ChaCha20Poly1305(self.key).encrypt(struct.pack("<4xQ", self.counter), plaintext, self.h)
            self.counter += 1
        self.mix_hash(out)
        return out

    def split(self):
        return self.hkdf2(self.ck, b"")


CLIENT, HOST = Identity(b"\x01" * 32), Identity(b"\x02" * 32)
E_CLIENT, E_HOST = (X25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (3, 4))
OFFER, CHOICE = bytes([2, AES256, CHACHA20]), bytes([AES256])


def noise_xx():
    s, messages = Symmetric(b"Noise_XX_25519_ChaChaPoly_BLAKE2s"), []
    s.mix_hash(raw(E_CLIENT))
    messages.append(raw(E_CLIENT) + s.encrypt(OFFER + b"one"))
    s.mix_hash(raw(E_HOST))
    s.mix_key(x25519(E_HOST, raw(E_CLIENT)))
    static = s.encrypt(HOST.static_public)
    s.mix_key(x25519(HOST.static, raw(E_CLIENT)))
    messages.append(raw(E_HOST) + static + s.encrypt(CHOICE + HOST.proof + b"two"))
    static = s.encrypt(CLIENT.static_public)
    s.mix_key(x25519(CLIENT.static, raw(E_HOST)))
    messages.append(static + s.encrypt(CLIENT.proof + b"three"))
    return messages, s


def noise_ik():
    s, messages = Symmetric(b"Noise_IK_25519_ChaChaPoly_BLAKE2s"), []
    s.mix_hash(HOST.static_public)
    s.mix_hash(raw(E_CLIENT))
    s.mix_key(x25519(E_CLIENT, HOST.static_public))
    static = s.encrypt(CLIENT.static_public)
    s.mix_key(x25519(CLIENT.static, HOST.static_public))
    messages.append(raw(E_CLIENT) + static + s.encrypt(OFFER + CLIENT.proof + b"one"))
    s.mix_hash(raw(E_HOST))
    s.mix_key(x25519(E_HOST, raw(E_CLIENT)))
    s.mix_key(x25519(E_HOST, CLIENT.static_public))
    messages.append(raw(E_HOST) + s.encrypt(CHOICE + HOST.proof + b"two"))
    return messages, s


# The Edwards curve of RFC 8032 in affine integers, and the blinding points of python-spake2.
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def decode_point(data):
    number = int.from_bytes(data, "little")
    y, sign = number % 2**255, number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert x * x % P == square
    return (x if x & 1 == sign else P - x, y)


def encode_point(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def add(a, b):
    t = D * a[0] * b[0] * a[1] * b[1] % P
    return (
        (a[0] * b[1] + a[1] * b[0]) * pow(1 + t, -1, P) % P,
        (a[1] * b[1] + a[0] * b[0]) * pow(1 - t, -1, P) % P,
    )


def multiply(point, scalar):
    result = (0, 1)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


BASE = decode_point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
M = decode_point(bytes.fromhex("15cfd18e385952982b6a8f8c7854963b58e34388c8e6dae891db756481a02312"))
N = decode_point(bytes.fromhex("f04f2e7eb734b2a8f8b472eaf9c3c632576ac64aea650b496a8a20ff00e583c3"))


def pairing(pin, handshake_hash, client_secret, host_secret):
    scalar = lambda secret: int.from_bytes(
        b"".join(hkdf(secret, b"rift-spake2-scalar-v1 " + bytes([block])) for block in (0, 1)), "little"
    )
    sha256 = lambda data: hashlib.sha256(data).digest()
    w = int.from_bytes(hkdf(pin, b"SPAKE2 pw", 48), "big") % ORDER
    x, y = scalar(client_secret) % ORDER, scalar(host_secret) % ORDER
    client = encode_point(add(multiply(BASE, x), multiply(M, w)))
    host = encode_point(add(multiply(BASE, y), multiply(N, w)))
    shared = encode_point(multiply(add(decode_point(host), multiply(N, -w % ORDER)), x))
    assert shared == encode_point(multiply(add(decode_point(client), multiply(M, -w % ORDER)), y))
    names = [b"rift-pair-v1 client", b"rift-pair-v1 host"]
    ids = b"".join(sha256(name + handshake_hash) for name in names)
    key = sha256(sha256(pin) + ids + client + host + shared)
    start, reply = b"A" + client, b"B" + host
    return start, reply, hmac.new(hkdf(key, names[0]), handshake_hash + start + reply, "sha256").digest()


def main():
    print("derive:", hkdf(b"\x0b" * 32, b"rift-key-update-v1").hex())
    address = ipaddress.ip_address("::ffff:192.0.2.7").packed
    cookie = address + struct.pack(">IHQQ", 0, 4810, 0x0102030405060708, 29_000_000)
    print("cookie:", hmac.new(b"\x09" * 32, cookie, "sha256").digest()[:16].hex())
    print("client id:", urlsafe_b64encode(CLIENT.id).rstrip(b"=").decode())
    print("client static:", CLIENT.static_public.hex())
    print("client signature:", CLIENT.signature.hex())
    for name, handshake in (("XX", noise_xx), ("IK", noise_ik)):
        messages, state = handshake()
        for number, message in enumerate(messages, 1):
            print(name, f"message {number}:", message.hex())
        print(name, "hash:", state.h.hex())
        up, down = state.split()
        print(name, "client's packet 0:", seal(AES256, up, 0).hex())
        print(name, "host's packet 0:", seal(AES256, down, 0).hex())
    key = b"\x11" * 32
    for suite in (CHACHA20, AES256):
        for packet_id in (0, 0x0123456789ABCDEF):
            print(f"suite {suite} packet {packet_id:x}:", seal(suite, key, packet_id).hex())
        print(f"suite {suite} next generation:", seal(suite, hkdf(key, b"rift-key-update-v1"), 7).hex())
    for name, value in zip(("start", "reply", "confirm"), pairing(b"123456", b"\x42" * 32, b"\5" * 32, b"\6" * 32)):
        print("pairing", f"{name}:", value.hex())


main()
