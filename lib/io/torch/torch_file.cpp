#include "lib/io/torch/torch_file.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <optional>
#include <span>

#include "lib/base/checked.h"
#include "lib/base/crc32.h"
#include "lib/base/error.h"
#include "lib/base/numbers.h"
#include "lib/base/parallel.h"
#include "lib/base/utf8.h"
#include "lib/io/safetensors.h"
#include "lib/io/sniff.h"
#include "lib/io/torch/parse_pickle.h"
#include "lib/io/zip/zip_directory.h"
#include "lib/io/zip/zip_record.h"

namespace moelora {
namespace {

// ---- checksums ----

constexpr uint64_t kBlock = uint64_t{4} << 20;

// A part of a record that one thread reads at a time.
struct Block {
  const ZipEntry* entry;
  uint64_t begin, bytes;
  uint32_t crc = 0;
};

// On all threads.
std::vector<Block> read_crcs(const File& file, const std::vector<ZipEntry>& directory) {
  std::vector<Block> blocks;
  for (const ZipEntry& entry : directory)
    for (uint64_t at = 0; at < entry.size; at += kBlock)
      blocks.push_back({&entry, entry.begin + at, std::min(kBlock, entry.size - at)});
  const int threads = available_threads();
  std::vector<std::vector<std::byte>> buffers(static_cast<size_t>(threads));
  parallel_for(static_cast<int64_t>(blocks.size()), threads, [&](int64_t item, int worker) {
    Block& block = blocks[static_cast<size_t>(item)];
    std::vector<std::byte>& buffer = buffers[static_cast<size_t>(worker)];
    buffer.resize(std::max(buffer.size(), size_t{block.bytes}));
    file.read(block.begin, block.bytes, buffer.data());
    block.crc = crc32(0, std::span(buffer).first(block.bytes));
  });
  return blocks;
}

// TorchScript, which holds code, is refused by its names alone.
std::vector<ZipEntry> read_torch_directory(const File& file) {
  return read_zip_directory(file, kTorchSave, [&](const std::string& name) {
    const std::string_view inner = std::string_view(name).substr(name.find('/') + 1);
    if (inner == "constants.pkl" || inner.starts_with("code/"))
      throw Error(in_file(file.path()), "is a TorchScript archive: it holds code, not only tensors",
                  resave_script_hint(file.path()));
  });
}

// The CRC-32 of every record against the directory's. False when the archive was
// saved without any.
bool check_torch_crcs(const File& file, const std::vector<ZipEntry>& directory) {
  if (std::all_of(directory.begin(), directory.end(), [](auto& entry) { return entry.crc == 0; }))
    return false;
  const std::vector<Block> blocks = read_crcs(file, directory);
  for (size_t i = 0; i < blocks.size();) {
    const ZipEntry* const entry = blocks[i].entry;
    uint32_t crc = 0;
    for (; i < blocks.size() && blocks[i].entry == entry; ++i)
      crc = crc32_join(crc, blocks[i].crc, blocks[i].bytes);
    if (crc != entry->crc)
      throw Error(
          in_file(file.path(), printable(entry->name)),
          fmt::format("has the CRC {:08x}, the archive says {:08x}: it is damaged", crc,
                      entry->crc),
          "Download or copy the file again; --ignore-zip-crc of lora-convert reads it as it is.");
  }
  return true;
}

// ---- the archive ----

constexpr uint64_t kSmallRecord = 64;
constexpr int kLastVersion = 10;  // kMaxSupportedFileFormatVersion of torch 2.11

class Opener {
 public:
  Opener(FilePtr file, const TorchOptions& options)
      : directory_(read_torch_directory(*file)),
        root_(directory_[0].name.substr(0, directory_[0].name.find('/'))),
        options_(options) {
    out_.file = std::move(file);
  }

  TorchArchive open() {
    sort_records();
    if (!options_.ignore_crc && !check_torch_crcs(*out_.file, directory_))
      out_.warnings.push_back(out_.file->path() +
                              ": was saved without checksums, damage cannot be seen");
    read_pickle();
    for (const PickledStorage& storage : out_.pickle.storages) place(storage);
    refuse_unused();
    return std::move(out_);
  }

 private:
  // By their names; reads the small ones: version, byteorder.
  void sort_records() {
    for (const ZipEntry& entry : directory_) check_root(entry);
    for (const ZipEntry& entry : directory_) add(entry);
    if (pickle_ == nullptr)
      refuse("has no data.pkl: it is a zip archive, but torch.save did not write it");
    if (!has_version_) refuse("has no record \"version\", which torch.save always writes");
  }

  std::string_view inner(const ZipEntry& entry) const {
    return std::string_view(entry.name).substr(root_.size() + 1);
  }

  void check_root(const ZipEntry& entry) const {
    if (!entry.name.starts_with(root_ + "/"))
      refuse("holds {} outside its folder {}: torch.save did not write it", in_quotes(entry.name),
             in_quotes(root_));
  }

  void add(const ZipEntry& entry) {
    const std::string_view name = inner(entry);
    if (name == "data.pkl") {
      pickle_ = &entry;
    } else if (is_storage(name)) {
      storages_[name.substr(5)] = &entry;
    } else if (name == "version" || name == ".data/version") {
      check_version(entry);
    } else if (name == "byteorder") {
      check_byteorder(entry);
    } else if (name != ".format_version" && name != ".storage_alignment" &&
               name != ".data/serialization_id") {
      refuse("holds the record {}, which torch.save does not write", in_quotes(name));
    }
  }

  // torch finds records whatever their case; digits have none. A plain path does not end in "/".
  static bool is_storage(std::string_view name) {
    return name.starts_with("data/") &&
           name.find_first_not_of("0123456789", 5) == std::string_view::npos;
  }

  std::string small_text(const ZipEntry& entry) const {
    if (entry.size > kSmallRecord)
      refuse("has a record {} of {} bytes", in_quotes(entry.name), entry.size);
    std::string out(entry.size, '\0');
    out_.file->read(entry.begin, out.size(), reinterpret_cast<std::byte*>(out.data()));
    return out;
  }

  void check_version(const ZipEntry& entry) {
    std::string text = small_text(entry);
    if (text.ends_with('\n')) text.pop_back();
    const auto version = parse_number<int>(text);
    if (!version || *version < 1 || *version > kLastVersion)
      refuse("has the format version {}, 1 to {} are read", in_quotes(text), kLastVersion);
    has_version_ = true;
  }

  void check_byteorder(const ZipEntry& entry) const {
    const std::string order = small_text(entry);
    if (order == "little") return;
    if (order == "big") refuse("holds big-endian numbers, only little-endian ones are read");
    refuse("has the byte order {}", in_quotes(order));
  }

  // DeepSpeed's model states hold the tensors under "module".
  static std::string hint_of(const std::string& path) {
    return path.ends_with("_model_states.pt") ? resave_part_hint(path, "module")
                                              : resave_hint(path);
  }

  void read_pickle() {
    const std::string where = out_.file->path() + ": data.pkl";
    const std::string hint = hint_of(out_.file->path());
    const ZipEntry& record = *pickle_;
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
    const auto record = storages_.find(storage.key);
    if (record == storages_.end())
      refuse("has no record for the storage {}", in_quotes(storage.key, 40));
    const auto width = storage.untyped ? 1 : static_cast<uint64_t>(dtype_bytes(storage.dtype));
    const auto bytes = checked_mul(static_cast<uint64_t>(storage.elements), width);
    if (bytes != record->second->size)
      refuse("says that the storage {} has {} elements of {}, its record has {} bytes", storage.key,
             storage.elements, storage.untyped ? "one byte" : dtype_name(storage.dtype),
             record->second->size);
    out_.storage_begin.push_back(record->second->begin);
    storages_.erase(record);
  }

  void refuse_unused() const {
    if (!storages_.empty())
      refuse("holds the record data/{}, which no tensor uses", storages_.begin()->first);
  }

  template <class... T>
  [[noreturn]] void refuse(fmt::format_string<T...> what, T&&... values) const {
    throw Error(in_file(out_.file->path()), fmt::format(what, std::forward<T>(values)...),
                resave_hint(out_.file->path()));
  }

  std::vector<ZipEntry> directory_;
  std::string root_;  // the folder that all records share
  TorchOptions options_;
  const ZipEntry* pickle_ = nullptr;
  std::map<std::string_view, const ZipEntry*> storages_;  // by key; they leave as they are placed
  bool has_version_ = false;
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

// ---- a dict of tensors ----

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
    for (const auto& [key, value] : weights_in(dict_of(root)).items) add(key, value);
    return std::move(out_);
  }

 private:
  const PickleDict& dict_of(const PickleValue& value) const {
    return archive_.pickle.dicts[value.index()];
  }

  // Null where the dict has no such key.
  const PickleValue* find(const PickleDict& dict, std::string_view key) const {
    for (const auto& [name, value] : dict.items)
      if (name.kind == Kind::text && archive_.pickle.texts[name.index()] == key) return &value;
    return nullptr;
  }

  static bool has_tensor(const PickleDict& dict) {
    return std::any_of(dict.items.begin(), dict.items.end(),
                       [](const auto& item) { return item.second.kind == Kind::tensor; });
  }

  // The dict itself, or the state dict in a trainer's checkpoint: DeepSpeed's "module", Lightning's
  // "state_dict", verl's "adapter_state_dict", "model" of most hand-written loops. A dict of
  // tensors is never one of these.
  const PickleDict& weights_in(const PickleDict& dict) const {
    if (has_tensor(dict)) return dict;
    refuse_shards_of_tensors(dict);
    for (const std::string_view key :
         {"adapter_state_dict", "module", "state_dict", "model_state_dict", "model"}) {
      const PickleValue* inner = find(dict, key);
      if (inner != nullptr && inner->kind == Kind::dict && has_tensor(dict_of(*inner)))
        return dict_of(*inner);
    }
    refuse_optimizer(dict);
    return dict;
  }

  // Beside no weights alone: loops of one's own save optimizer_state_dict beside model_state_dict.
  void refuse_optimizer(const PickleDict& dict) const {
    if (find(dict, "module") == nullptr && find(dict, "optimizer_state_dict") != nullptr)
      throw Error(in_file(path()), "holds one rank's shard of the optimizer, no weights",
                  "Gather them: python zero_to_fp32.py CHECKPOINT OUT.");
  }

  void refuse_shards_of_tensors(const PickleDict& dict) const {
    const PickleValue* size = find(dict, "mp_world_size");
    if (size != nullptr && size->kind == Kind::integer && size->number > 1)
      throw Error(
          in_file(path()),
          fmt::format("holds one of {} shards of each tensor (mp_world_size)", size->number),
          "Gather them with the trainer and save the adapter.");
  }

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

FilePtr open_zip(const InputPath& input) {
  FilePtr file = File::open(input);
  const std::string& path = input.path;
  const FileKind kind = sniff(*file);
  if (kind == FileKind::unknown)
    throw Error(in_file(path), "is not a zip archive, expected what torch.save writes",
                "The file is damaged or is not a torch file.");
  if (kind != FileKind::zip)
    throw Error(in_file(path),
                fmt::format("is {}, expected a zip archive of torch.save", describe(kind)),
                remedy(kind, path));
  return file;
}

}  // namespace

TorchFile open_torch_file(const InputPath& path, const TorchOptions& options) {
  TorchArchive archive = open_torch_archive(open_zip(path), options);
  TorchFile out;
  out.tensors = StateDict(archive).read();
  out.file = std::move(archive.file);
  out.warnings = std::move(archive.warnings);
  return out;
}

}  // namespace moelora
