#include "lib/io/torch_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/sniff.h"

namespace moelora {
namespace {

using Kind = PickleValue::Kind;

constexpr uint64_t kAlwaysAllowedBytes = uint64_t{256} << 20;

class StateDict {
 public:
  explicit StateDict(const TorchArchive& archive) : archive_(archive) {}

  TensorMap read() {
    const PickleValue& root = archive_.pickle.root;
    if (root.kind != Kind::dict)
      throw Error(in_file(path()),
                  fmt::format("holds {}, expected a dict of tensors", describe(root)),
                  resave_hint(path()));
    for (const auto& [key, value] : archive_.pickle.dicts[root.index()].items) add(key, value);
    return std::move(out_);
  }

 private:
  void add(const PickleValue& key, const PickleValue& value) {
    if (key.kind != Kind::text)
      throw Error(in_file(path()), fmt::format("has {} as a tensor's name", describe(key)),
                  resave_hint(path()));
    const std::string name(archive_.pickle.texts[key.index()]);
    if (value.kind != Kind::tensor) refuse_value(name, value);
    count(name, archive_.pickle.tensors[value.index()]);
    out_.emplace(name, archive_.tensor(value, name));
  }

  [[noreturn]] void refuse_value(const std::string& name, const PickleValue& value) const {
    throw Error(in_file(path(), printable(name)),
                fmt::format("is {}, expected a tensor", describe(value)),
                value.kind == Kind::dict ? resave_part_hint(path(), name) : resave_hint(path()));
  }

  void count(const std::string& name, const PickledTensor& tensor) {
    std::optional<uint64_t> bytes = static_cast<uint64_t>(dtype_bytes(tensor.dtype));
    for (const int64_t extent : tensor.shape)
      if (bytes) bytes = checked_mul(*bytes, static_cast<uint64_t>(extent));
    if (bytes) bytes = checked_add(*bytes, total_);
    const uint64_t most = std::max(kAlwaysAllowedBytes, 2 * archive_.file->size());
    if (!bytes || *bytes > most)
      throw Error(in_file(path(), printable(name)),
                  fmt::format("takes the tensors over {} bytes, of a file of {}: they overlap",
                              most, archive_.file->size()),
                  resave_hint(path()));
    total_ = *bytes;
  }

  std::string describe(const PickleValue& value) const {
    return moelora::describe(archive_.pickle, value);
  }
  const std::string& path() const { return archive_.file->path(); }

  const TorchArchive& archive_;
  TensorMap out_;
  uint64_t total_ = 0;
};

FilePtr open_zip(const std::string& path) {
  FilePtr file = File::open(path);
  const FileKind kind = sniff(*file);
  if (kind == FileKind::unknown)
    throw Error(in_file(path), "is no zip archive, expected what torch.save writes",
                "The file is damaged or is no torch file.");
  if (kind != FileKind::zip)
    throw Error(in_file(path),
                fmt::format("is {}, expected a zip archive of torch.save", describe(kind)),
                mend(kind, path));
  return file;
}

}  // namespace

TorchFile open_torch_file(const std::string& path, const TorchOptions& options) {
  TorchArchive archive = open_torch_archive(open_zip(path), options);
  TorchFile out;
  out.tensors = StateDict(archive).read();
  out.file = std::move(archive.file);
  out.warnings = std::move(archive.warnings);
  return out;
}

}  // namespace moelora
