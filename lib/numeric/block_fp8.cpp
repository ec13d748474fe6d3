#include "lib/numeric/block_fp8.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "lib/base/cast.h"
#include "lib/base/error.h"

namespace moelora {
namespace {

double e4m3_value(int code) {
  const int exponent = code >> 3 & 0xF, fraction = code & 7;
  if (exponent == 15 && fraction == 7) return std::numeric_limits<double>::quiet_NaN();
  const double size = exponent == 0 ? std::ldexp(fraction, -9)  // 2^-6 * fraction / 8
                                    : std::ldexp(8 + fraction, exponent - 10);
  return code >= 128 ? -size : size;
}

class BlockFp8Source final : public Source {
 public:
  BlockFp8Source(Tensor weight, Tensor scale, std::string where)
      : Source(DType::F64, weight.elements()),
        weight_(std::move(weight)),
        scale_(std::move(scale)),
        where_(std::move(where)) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    const int64_t columns = weight_.dim(1);
    for (int64_t at = first; at < first + count;) {
      const int64_t row = at / columns, column = at % columns;
      const int64_t n = std::min(columns - column, first + count - at);
      read_row(row, column, n, out);
      out += n * 8;
      at += n;
    }
  }

  std::string where() const override { return where_; }
  std::string change() const override { return "decode FP8 with block scales (exact)"; }

 private:
  void read_row(int64_t row, int64_t column, int64_t count, std::byte* out) const {
    const std::vector<std::byte> codes = weight_.slice(0, row, 1).slice(1, column, count).read();
    const std::vector<double> scales = read_double(scale_.slice(0, row / kFp8Block, 1));
    for (int64_t i = 0; i < count; ++i, out += 8) {
      const double code = e4m3_values()[static_cast<size_t>(codes[static_cast<size_t>(i)])];
      const double value = code * scales[static_cast<size_t>((column + i) / kFp8Block)];
      std::memcpy(out, &value, 8);
    }
  }

  Tensor weight_, scale_;
  std::string where_;
};

int64_t blocks_of(int64_t extent) { return (extent + kFp8Block - 1) / kFp8Block; }

}  // namespace

const std::array<double, 256>& e4m3_values() {
  static const std::array<double, 256> values = [] {
    std::array<double, 256> out;
    for (int code = 0; code < 256; ++code) out[static_cast<size_t>(code)] = e4m3_value(code);
    return out;
  }();
  return values;
}

Tensor block_fp8_tensor(const Tensor& weight, const Tensor& scale, const std::string& where) {
  if (weight.dtype() != DType::F8_E4M3 || weight.rank() != 2)
    throw Error(where, fmt::format("is {} {}, expected a matrix of F8_E4M3",
                                   dtype_name(weight.dtype()), to_string(weight.shape())));
  const Shape expected = {blocks_of(weight.dim(0)), blocks_of(weight.dim(1))};
  if (!is_float(scale.dtype()) || scale.shape() != expected)
    throw Error(where, fmt::format("weight_scale_inv is {} {}, expected a float type and {}, one "
                                   "scale for each {}x{} block",
                                   dtype_name(scale.dtype()), to_string(scale.shape()),
                                   to_string(expected), kFp8Block, kFp8Block));
  return Tensor(std::make_shared<BlockFp8Source>(weight, scale, where), weight.shape());
}

}  // namespace moelora
