#include "lib/io/safetensors.h"

#include <fmt/format.h>

#include <numeric>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/sniff.h"

namespace moelora {
namespace {

class FileSource final : public Source {
 public:
  // `names`: what `name` is part of.
  FileSource(FilePtr file, uint64_t begin, DType dtype, int64_t elements, std::string_view name,
             std::shared_ptr<const void> names)
      : Source(dtype, elements),
        file_(std::move(file)),
        range_{file_.get(), begin},
        name_(name),
        names_(std::move(names)) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    file_->read(range_.begin + bytes(first), bytes(first + count) - bytes(first), out);
  }

  int64_t granule() const override { return 8 / std::gcd(8, dtype_bits(dtype())); }
  std::string where() const override { return file_->path() + ": " + printable(name_); }
  std::vector<std::string> inputs() const override { return {std::string(name_)}; }
  const FileRange& range() const { return range_; }

 private:
  uint64_t bytes(int64_t elements) const {
    const auto n = static_cast<uint64_t>(elements);
    const auto bits = static_cast<uint64_t>(dtype_bits(dtype()));
    return n / 8 * bits + n % 8 * bits / 8;
  }

  FilePtr file_;
  FileRange range_;
  std::string_view name_;
  std::shared_ptr<const void> names_;
};

uint64_t header_length(const File& file) {
  if (file.size() < 8)
    throw Error(in_file(file.path()),
                fmt::format("has {} bytes, a safetensors file has at least 8", file.size()));
  uint64_t length = 0;
  file.read(0, sizeof length, reinterpret_cast<std::byte*>(&length));
  return length;
}

[[noreturn]] void refuse_length(const File& file, const std::string& what) {
  const FileKind kind = sniff(file);
  if (kind == FileKind::unknown)
    throw Error(in_file(file.path()), what, "The file is damaged or is not a safetensors file.");
  throw Error(in_file(file.path()), fmt::format("is {}, not a safetensors file", describe(kind)),
              remedy(kind, file.path()));
}

std::string read_header(const File& file) {
  const uint64_t length = header_length(file);
  if (length > kMaxHeaderBytes)
    refuse_length(file, fmt::format("its header is said to have {} bytes, at most {} are read",
                                    length, kMaxHeaderBytes));
  if (length > file.size() - 8)
    refuse_length(file, fmt::format("its header is said to have {} bytes, the file has {} after "
                                    "the length",
                                    length, file.size() - 8));
  std::string header(length, '\0');
  file.read(8, length, reinterpret_cast<std::byte*>(header.data()));
  return header;
}

// A dim above 2^63-1 can stand beside a 0 only; it is kept bit for bit and read by nobody. What
// comes before the 0 must still fit, as everyone who multiplies from the left relies on it.
Shape to_shape(const TensorEntry& entry, const std::string& path) {
  int64_t product = 1;
  Shape out;
  out.reserve(entry.shape.size());
  for (const uint64_t dim : entry.shape) {
    out.push_back(static_cast<int64_t>(dim));
    if (__builtin_mul_overflow(product, out.back(), &product))
      throw Error(in_file(path, printable(entry.name)),
                  fmt::format("has shape [{}], whose size does not fit 63 bits",
                              fmt::join(entry.shape, ", ")));
  }
  return out;
}

Tensor lazy_tensor(const FilePtr& file, const SafetensorsHeader& header, const TensorEntry& entry) {
  if (entry.begin == entry.end) return Tensor::zeros(entry.dtype, to_shape(entry, file->path()));
  const auto bits = static_cast<uint64_t>(dtype_bits(entry.dtype));
  const uint64_t bytes = entry.end - entry.begin;
  const uint64_t elements = bytes / bits * 8 + bytes % bits * 8 / bits;
  return Tensor(
      std::make_shared<FileSource>(file, header.data_begin + entry.begin, entry.dtype,
                                   static_cast<int64_t>(elements), entry.name, header.names),
      to_shape(entry, file->path()));
}

}  // namespace

SafetensorsFile open_safetensors(const InputPath& path) {
  SafetensorsFile out;
  out.file = File::open(path);
  out.header = parse_safetensors_header(read_header(*out.file), out.file->size(), path.path);
  // A writer that sorts by name makes the hint right for nearly every tensor.
  for (const TensorEntry& entry : out.header.tensors)
    out.tensors.emplace_hint(out.tensors.end(), entry.name,
                             lazy_tensor(out.file, out.header, entry));
  return out;
}

SourcePtr file_source(FilePtr file, uint64_t begin, DType dtype, int64_t elements,
                      std::string name) {
  const auto names = std::make_shared<const std::string>(std::move(name));
  return std::make_shared<FileSource>(std::move(file), begin, dtype, elements, *names, names);
}

const FileRange* file_range(const Source& source) {
  const auto* const plain = dynamic_cast<const FileSource*>(&source);
  return plain == nullptr ? nullptr : &plain->range();
}

}  // namespace moelora
