#include "protocol/transport/keys.h"

#include <sys/stat.h>
#include <zmq.h>

#include <cerrno>

#include "protocol/base/assert.h"
#include "protocol/base/file.h"

namespace tutti::transport {

namespace {

constexpr std::size_t kKeyCharacters = 40;
constexpr std::size_t kKeyBytes = 32;
constexpr std::size_t kKeyFileBytesMax = 256;

bool is_key(const std::string& text) {
  unsigned char bytes[kKeyBytes];
  return text.size() == kKeyCharacters && zmq_z85_decode(bytes, text.c_str()) != nullptr;
}

}  // namespace

KeyPair make_keys() {
  char public_key[kKeyCharacters + 1];
  char secret_key[kKeyCharacters + 1];
  const int made = zmq_curve_keypair(public_key, secret_key);
  TUTTI_ASSERT(made == 0);  // fails only for a libzmq without CURVE
  return {public_key, secret_key};
}

Result<KeyPair> load_or_make_keys(const std::filesystem::path& file) {
  Result<std::string> content = read_file(file, kKeyFileBytesMax);
  if (!content && content.error().code == ErrorCode::not_found) {
    KeyPair keys = make_keys();
    Result<> written =
        write_file_atomically(file, keys.public_key + "\n" + keys.secret_key + "\n", 0600);
    if (!written) return written.error();
    return keys;
  }
  if (!content) return content.error();
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) return errno_error("cannot read " + file.string(), errno);
  if ((status.st_mode & 077) != 0) {
    return Error{ErrorCode::permission_denied,
                 file.string() + " holds a secret key and others may read it; run chmod 600 on it"};
  }
  const std::size_t first = content->find('\n');
  if (first != std::string::npos && content->size() > first + 1) {
    KeyPair keys{content->substr(0, first), content->substr(first + 1)};
    if (keys.secret_key.back() == '\n') keys.secret_key.pop_back();
    char derived[kKeyCharacters + 1];
    if (is_key(keys.public_key) && is_key(keys.secret_key) &&
        zmq_curve_public(derived, keys.secret_key.c_str()) == 0 && keys.public_key == derived) {
      return keys;
    }
  }
  return Error{ErrorCode::corrupt,
               file.string() + " holds no pair of keys; remove it to have a new one made"};
}

}  // namespace tutti::transport
