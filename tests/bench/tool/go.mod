module benchtool

go 1.21
