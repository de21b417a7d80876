"""TFRecord files of `tf.train.Example`s, read and written without TensorFlow.

A record is its length (uint64), the length's checksum, the data and the data's checksum; both checksums are CRC-32C,
rotated and shifted by a constant. So a flipped bit in the data costs one record, one in a length costs the rest of
the file, and a cut costs what lies behind it: nothing says where the next record would start.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import google_crc32c
import numpy as np

from robosim.errors import DatasetError
from robosim_datasets.faults import Fault

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")

MASK = 0xA282EAD8
"""What TensorFlow adds to a rotated checksum, so that data which hold checksums can be checked themselves."""

Values = np.ndarray | list[bytes]


class Record(NamedTuple):
    """Where a record's data lie in its file."""

    start: int
    """Byte of the file at which the data begin."""
    size: int
    """Bytes of data."""


@dataclass(frozen=True)
class Scan:
    """All records that can be found in a file."""

    records: tuple[Record, ...]
    damaged: frozenset[int]
    """Numbers of records whose data don't match their checksum."""
    faults: tuple[Fault, ...]
    """Damage between the records: a cut, a length that can't be trusted."""


def scan_records(path: Path) -> Scan:
    """Read the whole file once and check every checksum; nothing is decoded.

    Raises `DatasetError` when the file can't be opened.
    """
    records: list[Record] = []
    damaged: list[int] = []
    faults: list[Fault] = []
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            while (position := file.tell()) < size:
                record, length_fits, data_fit = _next_record(file, size)
                place = f"record {len(records)} at byte {position}"
                if record is None:
                    what = f"is cut off in {place}" if length_fits else f"has a damaged length in {place}"
                    what += f"; the {len(records)} records before it are there, the last "
                    faults.append(Fault("damaged", path.name, f"{what}{size - position} bytes are lost"))
                    break
                if not length_fits:
                    what = f"the checksum of the length of {place} is damaged; its data are whole"
                    faults.append(Fault("checksum", path.name, what))
                if not data_fit:
                    damaged.append(len(records))
                records.append(record)
    except OSError as error:
        raise DatasetError(f"{path} can't be read ({error}); restore it") from error
    return Scan(tuple(records), frozenset(damaged), tuple(faults))


def _next_record(file: BinaryIO, size: int) -> tuple[Record | None, bool, bool]:
    """The record that starts here, and whether its length and its data match their checksums.

    None where the file is cut off (the length may fit), or where neither length nor data can be trusted: data that
    match their checksum prove the length too.
    """
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        return None, True, False
    length, checksum = HEADER.unpack(header)
    length_fits = checksum == masked_checksum(header[:8])
    record = Record(file.tell(), length)
    if record.start + length + FOOTER.size > size:
        return None, length_fits, False
    data = file.read(length)
    data_fit = FOOTER.unpack(file.read(FOOTER.size))[0] == masked_checksum(data)
    return record if length_fits or data_fit else None, length_fits, data_fit


def read_record(path: Path, record: Record) -> bytes:
    """The data of one record. Raises `DatasetError` when the file is gone or the checksum doesn't fit."""
    try:
        with path.open("rb") as file:
            file.seek(record.start)
            data = file.read(record.size)
            footer = file.read(FOOTER.size)
    except OSError as error:
        raise DatasetError(f"{path} can't be read ({error}); restore it") from error
    if len(footer) < FOOTER.size or FOOTER.unpack(footer)[0] != masked_checksum(data):
        raise DatasetError(
            f"{path}: the record at byte {record.start} isn't what was written (checksum); restore the file"
        )
    return data


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Write a TFRecord file."""
    with path.open("wb") as file:
        for data in records:
            length = struct.pack("<Q", len(data))
            file.write(length + FOOTER.pack(masked_checksum(length)))
            file.write(data + FOOTER.pack(masked_checksum(data)))


def masked_checksum(data: bytes) -> int:
    """CRC-32C as TFRecord stores it."""
    checksum = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + MASK) & 0xFFFFFFFF


def parse_example(data: bytes) -> dict[str, Values]:
    """The features of a serialised `tf.train.Example`: float32 [N], int64 [N] or a list of bytes by name.

    Raises `DatasetError` when the data aren't an `Example`.
    """
    from google.protobuf.message import DecodeError

    example = _example_class()()
    try:
        example.ParseFromString(data)
    except DecodeError as error:
        raise DatasetError(f"a record isn't a tf.train.Example ({error})") from error
    return {name: _values(feature) for name, feature in example.features.feature.items()}


def _values(feature: Any) -> Values:
    if feature.WhichOneof("kind") == "float_list":
        return np.array(feature.float_list.value, np.float32)
    if feature.WhichOneof("kind") == "int64_list":
        return np.array(feature.int64_list.value, np.int64)
    return list(feature.bytes_list.value)


def encode_example(features: Mapping[str, np.ndarray | Sequence[bytes]]) -> bytes:
    """Serialise features: floating point arrays, arrays of integers or truth values, or lists of bytes."""
    example = _example_class()()
    for name, values in features.items():
        feature = example.features.feature[name]
        if not isinstance(values, np.ndarray):
            feature.bytes_list.value.extend(values)
        elif values.dtype.kind == "f":
            feature.float_list.value.extend(values.reshape(-1).tolist())
        else:
            feature.int64_list.value.extend(values.reshape(-1).astype(np.int64).tolist())
    return example.SerializeToString(deterministic=True)


@cache
def _example_class() -> Any:
    """The message class of `tf.train.Example`, from its public definition (tensorflow/core/example/*.proto)."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    package = "robosim.tf"  # its own, so that it can live beside TensorFlow's in one process
    file = descriptor_pb2.FileDescriptorProto(name="robosim/example.proto", package=package, syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto

    def field(message: Any, name: str, number: int, **options: Any) -> None:
        message.field.add(name=name, number=number, **{"label": kind.LABEL_OPTIONAL, **options})

    lists = {"BytesList": kind.TYPE_BYTES, "FloatList": kind.TYPE_FLOAT, "Int64List": kind.TYPE_INT64}
    for name, type_ in lists.items():
        field(file.message_type.add(name=name), "value", 1, type=type_, label=kind.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        message = f".{package}.{list(lists)[number - 1]}"
        field(feature, name, number, type=kind.TYPE_MESSAGE, type_name=message, oneof_index=0)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, type=kind.TYPE_STRING)
    field(entry, "value", 2, type=kind.TYPE_MESSAGE, type_name=f".{package}.Feature")
    entries = f".{package}.Features.FeatureEntry"
    field(features, "feature", 1, type=kind.TYPE_MESSAGE, type_name=entries, label=kind.LABEL_REPEATED)
    example = file.message_type.add(name="Example")
    field(example, "features", 1, type=kind.TYPE_MESSAGE, type_name=f".{package}.Features")

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Example"))
