"""
Every private or version-dependent touch of another library, one file a library; see [`SEEN`] for the versions.

Nothing else in the package touches a private name of a library or imports from one of its undocumented modules. Where
a library moves such a name, the error names the library, its version and the name, and only the file here changes.
"""
