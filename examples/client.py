#!/usr/bin/env python3
"""Sends one frame to a line of devices and prints what comes back. Knows of Convoy only its convoy.proto.

Usage: client.py HOST:PORT [NAME=FILE.npy]...     an input without a file is filled with random numbers
"""
import socket
import sys

import numpy as np

import convoy_pb2 as pb  # protoc --proto_path=proto --python_out=examples convoy.proto

DTYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8"}  # numbered as in ONNX


def send(stream, **body):
    data = pb.Message(**body).SerializeToString()
    length, rest = bytearray(), len(data)
    while rest >= 0x80:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    stream.write(length + bytes([rest]) + data)
    stream.flush()


def receive(stream, wanted):
    """The next message with this body. Others are skipped, but Pings answered and bad news told."""
    while True:
        length = shift = 0
        more = True
        while more:
            byte = stream.read(1) or sys.exit("the device closed the connection")
            length |= (byte[0] & 0x7F) << shift
            shift += 7
            more = byte[0] >= 0x80
        message = pb.Message.FromString(stream.read(length))
        kind = message.WhichOneof("body")
        if kind == wanted:
            return message
        if kind == "ping":
            send(stream, pong=pb.Pong(token=message.ping.token))
        elif kind in ("goodbye", "refusal"):
            bad = getattr(message, kind)
            sys.exit(f"{kind}: {pb.Code.Name(bad.code)}: {bad.text}")


def join(arrays):
    """One payload: each array starts on a multiple of 64 bytes."""
    payload = b""
    for array in arrays:
        payload += bytes(-len(payload) % 64) + array.tobytes()
    return payload


def split(tensors, payload):
    """The arrays of a payload, by name."""
    arrays, offset = {}, 0
    for tensor in tensors:
        offset += -offset % 64
        data = payload[offset:offset + tensor.size]
        arrays[tensor.name] = np.frombuffer(data, DTYPES[tensor.dtype]).reshape(tensor.dims)
        offset += tensor.size
    return arrays


def main(address, *files):
    files = dict(name.split("=", 1) for name in files)
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as connection, connection.makefile("rwb") as stream:
        send(stream, hello=pb.Hello(version=1, role=pb.ROLE_CLIENT, node="client.py"))
        welcome = receive(stream, "welcome").welcome
        print(f"{welcome.node} runs {welcome.model}")

        inputs = []
        for tensor in welcome.inputs:
            array = np.load(files[tensor.name]) if tensor.name in files else np.random.random_sample(tensor.dims)
            inputs.append(np.ascontiguousarray(array, DTYPES[tensor.dtype]).reshape(tensor.dims))
        frame = pb.Frame(session=welcome.session, sequence=1, tensors=welcome.inputs)

        receive(stream, "credit")  # a frame without one would end the connection
        send(stream, frame=frame, payload=join(inputs))
        answer = receive(stream, "result")
        for name, array in split(answer.result.tensors, answer.payload).items():
            print(f"{name} {array.dtype} {list(array.shape)}\n{array}")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 1 else sys.exit(__doc__)
