// Streams of base64 (RFC 4648), with which TVM's runtime puts tensors into JSON.
#ifndef TVM_SUPPORT_BASE64_H_
#define TVM_SUPPORT_BASE64_H_

#include <tvm/ffi/extra/base64.h>

#include <string>

#include "bytes_io.h"

namespace tvm {
namespace support {

class Base64OutStream : public Stream {
 public:
  explicit Base64OutStream(Stream* stream) : stream_(stream) {}
  using Stream::Read;
  using Stream::Write;

  size_t Read(void*, size_t) final { return 0; }
  size_t Write(const void* data, size_t size) final {
    bytes_.append(static_cast<const char*>(data), size);
    return size;
  }
  void Finish() {
    std::string text = ffi::Base64Encode(ffi::Bytes(bytes_));
    stream_->Write(static_cast<const void*>(text.data()), text.size());
  }

 private:
  Stream* stream_;
  std::string bytes_;
};

class Base64InStream : public Stream {
 public:
  explicit Base64InStream(Stream* stream) : stream_(stream) {}
  using Stream::Read;
  using Stream::Write;

  void InitPosition() {
    std::string text;
    char part[4096];
    while (size_t count = stream_->Read(static_cast<void*>(part), sizeof(part))) {
      text.append(part, count);
    }
    bytes_ = ffi::Base64Decode(ffi::String(text));
    decoded_ = BytesInStream(bytes_);
  }
  size_t Read(void* data, size_t size) final { return decoded_.Read(data, size); }
  size_t Write(const void*, size_t) final { return 0; }

 private:
  Stream* stream_;
  ffi::Bytes bytes_;
  BytesInStream decoded_{ffi::Bytes()};
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_BASE64_H_
