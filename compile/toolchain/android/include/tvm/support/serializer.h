// How values are written to a stream: numbers as they lie in a little-endian memory, everything that
// has a length as 64 bits of it and its elements. An artifact's library holds its program so.
#ifndef TVM_SUPPORT_SERIALIZER_H_
#define TVM_SUPPORT_SERIALIZER_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/string.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "io.h"

namespace tvm {
namespace support {

// Of what has no other: its bytes.
template <typename T, typename = void>
struct Serializer {
  static_assert(std::is_trivially_copyable<T>::value, "no way to write values of this type");
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const T& value) {
    stream->Write(static_cast<const void*>(&value), sizeof(T));
  }
  static bool Read(Stream* stream, T* value) {
    return stream->Read(static_cast<void*>(value), sizeof(T)) == sizeof(T);
  }
};

// How much is read at once of what says that it is long: it may not be there.
constexpr uint64_t kMostAtOnce = 1 << 20;

template <>
struct Serializer<std::string> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const std::string& value) {
    stream->Write(static_cast<uint64_t>(value.size()));
    stream->Write(static_cast<const void*>(value.data()), value.size());
  }
  static bool Read(Stream* stream, std::string* value) {
    uint64_t left;
    if (!stream->Read(&left)) return false;
    value->clear();
    while (left > 0) {
      size_t begin = value->size(), part = left < kMostAtOnce ? left : kMostAtOnce;
      value->resize(begin + part);
      if (stream->Read(static_cast<void*>(&(*value)[begin]), part) != part) return false;
      left -= part;
    }
    return true;
  }
};

template <typename T>
struct Serializer<std::vector<T>> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const std::vector<T>& values) {
    stream->Write(static_cast<uint64_t>(values.size()));
    for (const T& value : values) stream->Write(value);
  }
  static bool Read(Stream* stream, std::vector<T>* values) {
    uint64_t count;
    if (!stream->Read(&count)) return false;
    values->clear();
    for (uint64_t i = 0; i < count; ++i) {
      T value;
      if (!stream->Read(&value)) return false;
      values->push_back(std::move(value));
    }
    return true;
  }
};

template <typename A, typename B>
struct Serializer<std::pair<A, B>> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const std::pair<A, B>& value) {
    stream->Write(value.first);
    stream->Write(value.second);
  }
  static bool Read(Stream* stream, std::pair<A, B>* value) {
    return stream->Read(&value->first) && stream->Read(&value->second);
  }
};

template <>
struct Serializer<ffi::String> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const ffi::String& value) {
    stream->Write(std::string(value));
  }
  static bool Read(Stream* stream, ffi::String* value) {
    std::string text;
    if (!stream->Read(&text)) return false;
    *value = ffi::String(std::move(text));
    return true;
  }
};

template <typename T>
struct Serializer<ffi::Array<T>> {
  static constexpr bool enabled = true;
  static void Write(Stream* stream, const ffi::Array<T>& values) {
    stream->Write(std::vector<T>(values.begin(), values.end()));
  }
  static bool Read(Stream* stream, ffi::Array<T>* values) {
    std::vector<T> found;
    if (!stream->Read(&found)) return false;
    *values = ffi::Array<T>(found.begin(), found.end());
    return true;
  }
};

template <typename T>
void Stream::Write(const T& value) {
  Serializer<T>::Write(this, value);
}
template <typename T>
bool Stream::Read(T* value) {
  return Serializer<T>::Read(this, value);
}
template <typename T>
void Stream::WriteArray(const T* values, size_t count) {
  for (size_t i = 0; i < count; ++i) Write(values[i]);
}
template <typename T>
bool Stream::ReadArray(T* values, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (!Read(values + i)) return false;
  }
  return true;
}

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_SERIALIZER_H_
