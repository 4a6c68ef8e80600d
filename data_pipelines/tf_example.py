"""Records as `tf.train.Example` messages, which tensorflow_datasets reads, without TensorFlow.

The schema is TensorFlow's (tensorflow/core/example/feature.proto and example.proto), said once more for protobuf:

    Example { Features { map<string, Feature> feature } }    Feature { oneof: bytes_list, float_list, int64_list }
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from mufun_jax.errors import UserError

_FIELD = descriptor_pb2.FieldDescriptorProto
_LISTS = {"bytes_list": _FIELD.TYPE_BYTES, "float_list": _FIELD.TYPE_FLOAT, "int64_list": _FIELD.TYPE_INT64}


class RecordError(UserError):
    """A record of a shard cannot be read."""


def _schema() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    feature = descriptor_pb2.DescriptorProto(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(_LISTS.items(), 1):
        values = file.message_type.add(name=name.title().replace("_", ""))
        values.field.add(name="value", number=1, type=kind, label=_FIELD.LABEL_REPEATED)
        feature.field.add(
            name=name, number=number, type=_FIELD.TYPE_MESSAGE, type_name=f".tensorflow.{values.name}", oneof_index=0
        )
    file.message_type.append(feature)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry", options=descriptor_pb2.MessageOptions(map_entry=True))
    entry.field.add(name="key", number=1, type=_FIELD.TYPE_STRING)
    entry.field.add(name="value", number=2, type=_FIELD.TYPE_MESSAGE, type_name=".tensorflow.Feature")
    features.field.add(
        name="feature",
        number=1,
        type=_FIELD.TYPE_MESSAGE,
        type_name=".tensorflow.Features.FeatureEntry",
        label=_FIELD.LABEL_REPEATED,
    )
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, type=_FIELD.TYPE_MESSAGE, type_name=".tensorflow.Features")
    pool = descriptor_pool.DescriptorPool()  # not the default one: TensorFlow, where it is, has its own there
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


_Example = _schema()


def encode_record(features: Mapping[str, Sequence[bytes]]) -> bytes:
    """A record of named lists of bytes. The same features give the same bytes."""
    record = _Example()
    for name, values in features.items():
        record.features.feature[name].bytes_list.value.extend(values)
    return record.SerializeToString(deterministic=True)


def decode_record(data: bytes) -> dict[str, list[bytes]]:
    """The named lists of bytes of a record. Raises RecordError where `data` is no such message."""
    record = _Example()
    try:
        record.ParseFromString(data)
    except message.DecodeError:
        raise RecordError("a record is no tf.train.Example") from None
    return {name: list(feature.bytes_list.value) for name, feature in record.features.feature.items()}
