#include "lib/io/torch_archive.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/safetensors.h"
#include "lib/io/sniff.h"
#include "lib/io/torch_records.h"

namespace moelora {
namespace {

class Opener {
 public:
  Opener(FilePtr file, const TorchOptions& options)
      : directory_(read_torch_directory(*file)), options_(options) {
    out_.file = std::move(file);
    records_ = sort_torch_records(*out_.file, directory_);
  }

  TorchArchive open() {
    if (!options_.ignore_crc && !check_torch_crcs(*out_.file, directory_))
      out_.warnings.push_back(out_.file->path() +
                              ": was saved without checksums, damage cannot be seen");
    read_pickle();
    for (const PickledStorage& storage : out_.pickle.storages) place(storage);
    refuse_unused();
    return std::move(out_);
  }

 private:
  void read_pickle() {
    const std::string where = out_.file->path() + ": data.pkl";
    const std::string hint = resave_hint(out_.file->path());
    const ZipEntry& record = *records_.pickle;
    if (record.size > kMaxPickleBytes)
      throw Error(in_file(where),
                  fmt::format("has {} bytes, at most {} are read", record.size, kMaxPickleBytes),
                  hint);
    auto bytes = std::make_shared<std::string>(record.size, '\0');
    out_.file->read(record.begin, record.size, reinterpret_cast<std::byte*>(bytes->data()));
    out_.pickle = parse_pickle(*bytes, where, hint);
    out_.pickle_bytes = std::move(bytes);
  }

  void place(const PickledStorage& storage) {
    const auto record = records_.storages.find(storage.key);
    if (record == records_.storages.end())
      refuse(fmt::format("has no record for the storage {}", quoted(storage.key, 40)));
    const auto width = storage.untyped ? 1 : static_cast<uint64_t>(dtype_bytes(storage.dtype));
    const auto bytes = checked_mul(static_cast<uint64_t>(storage.elements), width);
    if (bytes != record->second->size)
      refuse(fmt::format("says that the storage {} has {} elements of {}, its record has {} bytes",
                         storage.key, storage.elements,
                         storage.untyped ? "one byte" : dtype_name(storage.dtype),
                         record->second->size));
    out_.storage_begin.push_back(record->second->begin);
    records_.storages.erase(record);
  }

  void refuse_unused() const {
    if (!records_.storages.empty())
      refuse(fmt::format("holds the record data/{}, which no tensor uses",
                         records_.storages.begin()->first));
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(in_file(out_.file->path()), what, resave_hint(out_.file->path()));
  }

  std::vector<ZipEntry> directory_;
  TorchOptions options_;
  TorchRecords records_;  // those of storages leave as they are placed
  TorchArchive out_;
};

// Elements of the storage between the first and the last of the tensor.
int64_t reach(const PickledTensor& tensor) {
  int64_t out = 1;
  for (size_t d = 0; d < tensor.shape.size(); ++d) {
    if (tensor.shape[d] == 0) return 0;
    out += (tensor.shape[d] - 1) * tensor.stride[d];
  }
  return out;
}

}  // namespace

TorchArchive open_torch_archive(FilePtr file, const TorchOptions& options) {
  return Opener(std::move(file), options).open();
}

Tensor TorchArchive::tensor(const PickleValue& value, const std::string& name) const {
  const PickledTensor& t = pickle.tensors[value.index()];
  const auto skipped = static_cast<uint64_t>(t.offset * dtype_bytes(t.dtype));
  return Tensor::strided(
      file_source(file, storage_begin[t.storage] + skipped, t.dtype, reach(t), name), t.shape,
      t.stride);
}

}  // namespace moelora
