// What TVM's runtime asks of strings.
#ifndef TVM_SUPPORT_UTILS_H_
#define TVM_SUPPORT_UTILS_H_

#include <algorithm>
#include <cctype>
#include <string>

namespace tvm {
namespace support {

inline bool IsNumber(const std::string& text) {
  auto is_digit = [](unsigned char letter) { return std::isdigit(letter) != 0; };
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_UTILS_H_
